// How files come in: chosen, dropped anywhere on the page, or pasted.

import { chosen, chosenFolder, dropped } from "./files.js";

const place = (name) => document.getElementById(name);
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

let pasted = 0;
/** Browsers call every picture from the clipboard the same; each gets a name of its own. */
function named(file) {
  if (file.name !== "image.png") return file;
  pasted += 1;
  return new File([file], `pasted ${pasted}.png`, { type: file.type });
}

/** Calls `take` with what comes in, [{file, path}]; empty where there is no file in a drop or choice. */
export function listen(take) {
  for (const [button, input, read] of [
    ["choose-files", "files", chosen],
    ["choose-folder", "folder", chosenFolder],
  ]) {
    place(button).addEventListener("click", () => place(input).click());
    place(input).addEventListener("change", () => {
      take(read(place(input).files));
      // So that the same file can be chosen again.
      place(input).value = "";
    });
  }

  let depth = 0;
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    depth += 1;
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth -= 1;
    if (depth <= 0) document.body.classList.remove("dragging");
  });
  addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  addEventListener("drop", async (event) => {
    depth = 0;
    document.body.classList.remove("dragging");
    if (!holdsFiles(event)) return;
    event.preventDefault();
    take(await dropped(event.dataTransfer));
  });

  addEventListener("paste", (event) => {
    const found = chosen([...(event.clipboardData?.files ?? [])].map(named));
    // Text is pasted as well, as into the field of the key.
    if (found.length) take(found);
  });
}
