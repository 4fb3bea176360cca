-- Forwards the MR images of each new stable series to the brain MRI service by STOW-RS.
--
-- Orthanc keeps what it has to forward only in memory, and tries it once. This script keeps a list in
-- Orthanc's storage folder: a series is on it from its first image until the service has taken all of it,
-- so neither a service that is down, has no room or does not let Orthanc in, nor a restart of Orthanc loses one. It
-- gives a series up only where the service itself says that it refuses something, again and again, and turns nothing
-- away; it does not say what or whose, so what it refuses of another PACS counts as well. What the service sends back is
-- not forwarded again.
--
-- It needs the plugin DicomWeb with a server of the name that "BrainMri" gives (see orthanc.json), and
-- the commands bash, sleep and curl for its retries. It writes no attribute of a patient anywhere.

local configuration = GetOrthancConfiguration()
local settings = configuration['BrainMri'] or {}

local SERVER = settings['Server'] or 'brain-mri'
local FIRST_SECONDS = settings['RetrySeconds'] or 10
local MAX_SECONDS = settings['RetryMaxSeconds'] or 300
local MAX_REFUSALS = settings['MaxRefusals'] or 10
local LIST = configuration['StorageDirectory'] .. '/brain-mri-pending'

-- The Manufacturer of the service's results.
local OURS = 'Brain MRI inference'

-- What the service takes; anything else in a series would fail the transfer of all of it.
local CLASSES = {}
for _, class in ipairs(settings['SopClasses'] or {
   '1.2.840.10008.5.1.4.1.1.4', -- MR Image Storage
   '1.2.840.10008.5.1.4.1.1.4.1', -- Enhanced MR Image Storage
   '1.2.840.10008.5.1.4.1.1.4.3', -- Enhanced MR Color Image Storage
   '1.2.840.10008.5.1.4.1.1.4.4', -- Legacy Converted Enhanced MR Image Storage
}) do
   CLASSES[class] = true
end

-- Metadata that a retry sets; numbers from 1024 on are free for use.
local RETRY = 4123

-- The shell first closes what it has of Orthanc, whose ports would otherwise stay taken after a stop.
-- A job says only that it failed: 413, 503 and no answer at all are the same error to Orthanc. So the shell asks the
-- service. It transfers nothing: where address, certificate and key are right, the service itself refuses that, with
-- this code. Any other answer means that transfers fail for a reason that is none of the series, such as a changed key.
-- /health says how many requests the service has refused for what they are, and how many it had no room for. What the
-- shell reads are three files of options for curl.
local BACKGROUND = [==[exec bash -c '
   for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done
   IFS= read -r -d "" nothing
   IFS= read -r -d "" health
   wake=$(cat)
   ask() { printf "%%s" "$1" | curl --silent --max-time 10 --config -; }
   {
      sleep %d
      counts="\"requests_refused\":([0-9]+),\"requests_turned_away\":([0-9]+)"
      state=away
      [[ $(ask "$nothing") == *"\"no_input\""*" 400" && $(ask "$health") =~ $counts ]] &&
         state="${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
      printf "%%s\ndata = \"%%s\"\n" "$wake" "$state" | curl --silent --config -
   } </dev/null >/dev/null 2>&1 &']==]

-- Orthanc has no means of its own to demand a variable, and takes one that is not set for an empty word.
-- An error here stops its start, before it listens.
for user, password in pairs(configuration['RegisteredUsers'] or {}) do
   if password == '' then
      error('the password of the user ' .. user .. ' is empty: set ORTHANC_PASSWORD')
   end
end

local pending = {} -- series to the number of failures so far
local refusals = {} -- series to how often in a row it failed while the service refused something
local answers = {} -- series to what the service said before its last transfer: numbers of requests refused, turned away
local sending = {} -- job to series
local newest = {} -- series to its newest job; none once an image has come that is not in it

local function Save()
   local file = assert(io.open(LIST .. '.new', 'w'))
   for series, _ in pairs(pending) do
      file:write(series, '\n')
   end
   file:close()
   assert(os.rename(LIST .. '.new', LIST))
end

local function Drop(series)
   pending[series], refusals[series], answers[series], newest[series] = nil, nil, nil, nil
   Save()
end

local function Quote(text)
   return '"' .. string.gsub(text, '[\\"]', '\\%0') .. '"'
end

-- Options with which curl calls the service as Orthanc does: a question that is let in where transfers are not, or
-- the other way round, would say nothing about them.
local function Question(server, url, lines)
   table.insert(lines, 'url = ' .. Quote(url))
   for name, value in pairs(server['HttpHeaders'] or {}) do
      table.insert(lines, 'header = ' .. Quote(name .. ': ' .. value))
   end
   local user, password = server['Username'] or server[2], server['Password'] or server[3]
   if user and user ~= '' then
      table.insert(lines, 'user = ' .. Quote(user .. ':' .. (password or '')))
   end
   local authorities = configuration['HttpsCACertificates'] or ''
   if configuration['HttpsVerifyPeers'] == false then
      table.insert(lines, 'insecure')
   else
      -- Where there are none, Orthanc reaches nothing by https; curl would take the system's.
      table.insert(lines, 'cacert = ' .. Quote(authorities ~= '' and authorities or '/'))
   end
   for option, value in pairs({
      proxy = configuration['HttpProxy'] or '',
      cert = server['CertificateFile'] or '',
      key = server['CertificateKeyFile'] or '',
      pass = server['CertificateKeyPassword'] or '',
   }) do
      if value ~= '' then
         table.insert(lines, option .. ' = ' .. Quote(value))
      end
   end
   return table.concat(lines, '\n') .. '\n'
end

-- Whether transfers are let in, and what became of those before.
local function Questions()
   local servers = (configuration['DicomWeb'] or {})['Servers'] or {}
   local server = servers[SERVER] or {}
   local root = string.gsub(server['Url'] or server[1] or '', '/+$', '')
   local nothing = Question(server, root .. '/studies', {
      'header = "Content-Type: multipart/related; type=\\"application/dicom\\"; boundary=nothing"',
      'data-binary = "--nothing--\\r\\n"',
      'write-out = " %{http_code}"',
   })
   local health = Question(server, string.gsub(root, '/dicom%-web$', '/health'), { 'fail' })
   return nothing, health
end

-- A detached shell sets a metadata of the series some time later, which calls OnUpdatedSeries: how many requests the
-- service has refused and turned away, or "away" where it does not say that or would let no transfer in.
-- What Lua itself waits for, all of Orthanc waits for. Credentials go through a pipe: arguments show.
local function RetryLater(series, seconds)
   local url = string.format('%s://127.0.0.1:%d/series/%s/metadata/%d',
      configuration['SslEnabled'] and 'https' or 'http', configuration['HttpPort'] or 8042, series, RETRY)
   local lines = {
      'url = ' .. Quote(url),
      'noproxy = "*"',
      'request = "PUT"',
      'insecure', -- it is this very process, on the loopback interface
   }
   for user, password in pairs(configuration['RegisteredUsers'] or {}) do
      table.insert(lines, 'user = ' .. Quote(user .. ':' .. password))
      break
   end
   local command = string.format(BACKGROUND, seconds)
   local shell = assert(io.popen(command, 'w'))
   local nothing, health = Questions()
   shell:write(nothing, '\0', health, '\0', table.concat(lines, '\n'), '\n')
   shell:close()
end

-- The images of a series that the service takes; none if the series has been deleted.
local function Images(series)
   local images = {}
   local answer = RestApiGet('/series/' .. series)
   for _, instance in ipairs(answer and ParseJson(answer)['Instances'] or {}) do
      local class = RestApiGet('/instances/' .. instance .. '/metadata/SopClassUid')
      if class == nil or CLASSES[class] then
         table.insert(images, instance)
      end
   end
   return images
end

local function Send(series)
   local images = Images(series)
   if #images == 0 then
      Drop(series)
      return
   end
   local request = { Resources = images, Synchronous = false }
   local answer = RestApiPost('/dicom-web/servers/' .. SERVER .. '/stow', DumpJson(request, true))
   local job = answer and ParseJson(answer)
   if job and job['ID'] then
      sending[job['ID']] = series
      newest[series] = job['ID']
   else
      RetryLater(series, MAX_SECONDS)
   end
end

function OnStoredInstance(instance, tags, metadata)
   if tags['Modality'] ~= 'MR' or tags['Manufacturer'] == OURS then
      return
   end
   local series = ParseJson(RestApiGet('/instances/' .. instance .. '/series'))
   -- It stays stable where Orthanc had the instance already.
   if not series['IsStable'] then
      newest[series['ID']] = nil
      if not pending[series['ID']] then
         pending[series['ID']] = 0
         Save()
      end
   end
end

function OnStableSeries(series, tags, metadata)
   if pending[series] then
      pending[series], refusals[series], answers[series] = 0, nil, nil
      Send(series)
   end
end

function OnUpdatedSeries(series)
   if not pending[series] then
      return
   end
   local state = RestApiGet('/series/' .. series .. '/metadata/' .. RETRY) or ''
   local before, now = answers[series] or {}, { string.match(state, '^(%d+) (%d+)$') }
   -- What was turned away meanwhile may have been this series.
   local was_refused = before[1] and now[1] and tonumber(now[1]) > tonumber(before[1]) and now[2] == before[2]
   refusals[series], answers[series] = was_refused and (refusals[series] or 0) + 1 or 0, now
   if refusals[series] >= MAX_REFUSALS then
      print('brain-mri: the service refuses series ' .. series .. ', which is not forwarded any more')
      Drop(series)
   else
      Send(series)
   end
end

-- The series of a job that has ended, if that job had all of its images.
local function Ended(job)
   local series = sending[job]
   sending[job] = nil
   if series and newest[series] == job then
      return series
   end
end

function OnJobSuccess(job)
   local series = Ended(job)
   if series then
      Drop(series)
   end
end

function OnJobFailure(job)
   local series = Ended(job)
   if series then
      pending[series] = (pending[series] or 0) + 1
      local seconds = FIRST_SECONDS * 2 ^ math.min(pending[series] - 1, 20)
      RetryLater(series, math.min(MAX_SECONDS, seconds))
   end
end

-- Called at the start, when the REST API does not answer yet.
function Initialize()
   local file = io.open(LIST, 'r')
   if file then
      for series in file:lines() do
         pending[series] = 0
         RetryLater(series, FIRST_SECONDS)
      end
      file:close()
   end
end
