// Elements from texts. Every text becomes a text node: nothing that comes from a post or a person is ever parsed as HTML.

const TAGS = new Set("p h1 h2 h3 h4 h5 h6 ul ol li strong em code pre blockquote hr br table thead tbody tr th td a".split(" "));

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A text of somebody: as it is, line breaks kept, its direction its own, and scrolling if it is long.
function textBox(text, name) {
  const box = el("div", { class: "rl-text", dir: "auto" });
  box.textContent = text;
  requestAnimationFrame(() => {
    if (box.scrollHeight <= box.clientHeight + 1) return;
    box.tabIndex = 0; // Who has no mouse must be able to scroll it.
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${name}, scrolls`);
  });
  return box;
}

function button(label, key, action, attributes = {}) {
  const keyLabel = key ? el("kbd", {}, key) : null;
  return el("button", { type: "button", class: "rl-button", onclick: action, ...attributes }, keyLabel, keyLabel ? " " : null, label);
}

function markdown(tree) {
  return tree.map((node) => {
    if (typeof node === "string") return node;
    if (!TAGS.has(node.tag)) return null;
    // Headings of guidelines come below those of the notebook; tables scroll on their own where they are too wide.
    const tag = /^h[1-4]$/.test(node.tag) ? "h5" : node.tag;
    const link = node.tag === "a" ? { href: node.href, target: "_blank", rel: "noopener noreferrer" } : {};
    const element = el(tag, link, markdown(node.children));
    return node.tag === "table" ? el("div", { class: "rl-table", tabindex: "0", role: "group", "aria-label": "Examples" }, element) : element;
  });
}

// The guidelines, and the button that shows them. What is hidden would drop the focus.
function setOpen({ root, guide, help }, isOpen) {
  if (!isOpen && guide.contains(document.activeElement)) root.focus({ preventScroll: true });
  guide.hidden = !isOpen;
  help.setAttribute("aria-expanded", String(isOpen));
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function uid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const LETTERS = "ABCDEFGHI";

// What scrolls by keys while it has the focus, whatever the keys mean elsewhere.
function isScrolling({ target, key }) {
  return target.matches(".rl-guide, .rl-table, .rl-text") && /^(Arrow|Page|Home$|End$| $)/.test(key);
}

function isTyping(target) {
  return target instanceof HTMLTextAreaElement || (target instanceof HTMLInputElement && target.type === "text");
}
