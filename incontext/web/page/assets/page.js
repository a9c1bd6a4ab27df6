// `shortcuts` is a table of [key, selector, text], put in front of this file.

const inSight = (element) => element.offsetParent !== null && !element.disabled;
const find = (selector) => [...document.querySelectorAll(selector)].find(inSight);

// Every picture says what it is, also those that Gradio draws without a word; buttons name their key.
const describe = () => {
  for (const img of document.querySelectorAll("img:not([alt]), img[alt='']")) {
    const block = img.closest("[id]"), label = block && block.querySelector("label, .label");
    img.alt = (img.title || (label && label.textContent) || "picture").trim();
  }
  for (const [key, selector, text] of shortcuts) {
    for (const element of document.querySelectorAll(selector)) {
      if (element.ariaKeyShortcuts === key) continue;
      element.ariaKeyShortcuts = key;
      element.title = `${text} (${key === "Escape" ? "Esc" : key.toUpperCase()})`;
    }
  }
};
new MutationObserver(describe).observe(document, {childList: true, subtree: true});

// A reload begins anew, and so does "Start over": ask before work is lost.
addEventListener("pointerdown", () => {
  addEventListener("beforeunload", (event) => event.preventDefault());
}, {once: true});
addEventListener("click", (event) => {
  const button = event.target.closest("#start-over");
  const hasWork = button && button.textContent.includes("Start over");
  if (hasWork && !confirm("Remove your examples, pictures and results?")) {
    event.stopPropagation();
    event.preventDefault();
  }
}, {capture: true});

// The list of shortcuts, where single keys can be turned off.
addEventListener("click", (event) => {
  const help = document.querySelector("#help");
  if (event.target.closest("#help-button")) {
    document.querySelector("#single-keys").checked = singleKeys();
    help.showModal();
  } else if (event.target.closest("#help-close") || event.target === help) help.close();
});
addEventListener("change", (event) => {
  if (event.target.id === "single-keys") {
    localStorage.setItem("incontext-single-keys", event.target.checked ? "on" : "off");
  }
});
const singleKeys = () => localStorage.getItem("incontext-single-keys") !== "off";

const TYPING = "textarea, select, [contenteditable=true], .cm-editor, "
  + "input:not([type=radio]):not([type=checkbox]):not([type=range]):not([type=file])";

const press = (selector) => {
  const element = find(selector);
  if (!element) return false;
  const choices = [...element.querySelectorAll("input[type=radio]")];
  const next = choices[(choices.findIndex((choice) => choice.checked) + 1) % choices.length];
  (next || element).click();
  return true;
};

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const segment = shortcuts[0][1];
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (press(segment)) event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!singleKeys() || event.target.closest?.(TYPING)) return;
  const row = shortcuts.find(([key]) => key === event.key || key === event.key.toLowerCase());
  if (row && press(row[1])) event.preventDefault();
});
