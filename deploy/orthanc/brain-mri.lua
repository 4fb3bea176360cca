-- Forwards each new stable MR series to the brain MRI service by STOW-RS, and does not give up.
--
-- Orthanc keeps what it has to forward only in memory, and tries it once. This script keeps a list in
-- Orthanc's storage folder: a series leaves it when the service has taken all of it, so neither a service
-- that is down nor a restart of Orthanc loses one. What the service sends back is not forwarded again.
--
-- It needs the plugin DicomWeb with a server of the name that "BrainMri" gives (see orthanc.json), and
-- the commands bash, sleep and curl for its retries. It writes no attribute of a patient anywhere.

local configuration = GetOrthancConfiguration()
local settings = configuration['BrainMri'] or {}

local SERVER = settings['Server'] or 'brain-mri'
local FIRST_SECONDS = settings['RetrySeconds'] or 10
local MAX_SECONDS = settings['RetryMaxSeconds'] or 300
local LIST = configuration['StorageDirectory'] .. '/brain-mri-pending'

-- The Manufacturer of the service's results.
local OURS = 'Brain MRI inference'

-- Metadata that a retry sets; numbers from 1024 on are free for use.
local RETRY = 4123

-- The shell first closes what it has of Orthanc, whose ports would otherwise stay taken after a stop.
local BACKGROUND = [[exec bash -c '
   for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done
   lines=$(cat)
   { sleep %d; printf "%%s\n" "$lines" | curl --silent --config -; } </dev/null >/dev/null 2>&1 &']]

-- Orthanc has no means of its own to demand a variable, and takes one that is not set for an empty word.
-- An error here stops its start, before it listens.
for user, password in pairs(configuration['RegisteredUsers'] or {}) do
   if password == '' then
      error('the password of the user ' .. user .. ' is empty: set ORTHANC_PASSWORD')
   end
end

local pending = {} -- series to the number of failures so far
local sending = {} -- job to series

local function Save()
   local file = assert(io.open(LIST .. '.new', 'w'))
   for series, _ in pairs(pending) do
      file:write(series, '\n')
   end
   file:close()
   assert(os.rename(LIST .. '.new', LIST))
end

local function Quote(text)
   return '"' .. string.gsub(text, '[\\"]', '\\%0') .. '"'
end

-- A detached shell sets a metadata of the series some time later, which calls OnUpdatedSeries.
-- What Lua itself waits for, all of Orthanc waits for. Credentials go through a pipe: arguments show.
local function RetryLater(series, seconds)
   local url = string.format('%s://127.0.0.1:%d/series/%s/metadata/%d',
      configuration['SslEnabled'] and 'https' or 'http', configuration['HttpPort'] or 8042, series, RETRY)
   local lines = {
      'url = ' .. Quote(url),
      'noproxy = "*"',
      'request = "PUT"',
      'data = "retry"',
      'insecure', -- it is this very process, on the loopback interface
   }
   for user, password in pairs(configuration['RegisteredUsers'] or {}) do
      table.insert(lines, 'user = ' .. Quote(user .. ':' .. password))
      break
   end
   local command = string.format(BACKGROUND, seconds)
   local shell = assert(io.popen(command, 'w'))
   shell:write(table.concat(lines, '\n'), '\n')
   shell:close()
end

local function Send(series)
   if RestApiGet('/series/' .. series .. '/statistics') == nil then
      pending[series] = nil -- deleted meanwhile
      Save()
      return
   end
   local request = { Resources = { series }, Synchronous = false }
   local answer = RestApiPost('/dicom-web/servers/' .. SERVER .. '/stow', DumpJson(request, true))
   local job = answer and ParseJson(answer)
   if job and job['ID'] then
      sending[job['ID']] = series
   else
      RetryLater(series, MAX_SECONDS)
   end
end

function OnStableSeries(series, tags, metadata)
   if tags['Modality'] == 'MR' and tags['Manufacturer'] ~= OURS then
      pending[series] = 0
      Save()
      Send(series)
   end
end

function OnUpdatedSeries(series)
   if pending[series] then
      Send(series)
   end
end

function OnJobSuccess(job)
   local series = sending[job]
   if series then
      sending[job] = nil
      pending[series] = nil
      Save()
   end
end

function OnJobFailure(job)
   local series = sending[job]
   if series then
      sending[job] = nil
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
