// An answer to improve; the difference is shown while one writes. The kernel finds it, as it does for the label.

const PREVIEW_MS = 150;

const edit = {
  show(page, view) {
    const original = view.answers[0];
    const comment = page.comment();
    const text = page.field("text", "Your version", { tag: "textarea", rows: 6, value: view.value?.text ?? original });
    const preview = el("div", { class: "rl-text rl-diff", dir: "auto", role: "group", "aria-label": "What you changed" });
    const assignment = view.assignment;
    let timer = 0;
    const ask = () => page.sender.isLost || page.model.send({ uid: "preview", action: "preview", assignment, text: text.value });
    const changed = () => { clearTimeout(timer); timer = setTimeout(ask, PREVIEW_MS); };
    text.addEventListener("input", changed);
    const strike = () => {
      text.focus();
      if (text.selectionStart === text.selectionEnd) {
        page.status.textContent = "Select the words to strike out first.";
        return;
      }
      text.setRangeText("", text.selectionStart, text.selectionEnd, "end");
      text.dispatchEvent(new Event("input"));
    };
    const restore = () => { text.value = original; text.dispatchEvent(new Event("input")); text.focus(); };
    const save = () => page.answer({ text: text.value, spans: [] }, comment?.field.value ?? "");
    return {
      nodes: [...postNodes(view), el("label", { class: "rl-field" }, "Your version ", el("kbd", {}, "E"), text),
        el("div", { class: "rl-row" }, button("Strike out what is selected", "", strike), button("Start over", "", restore)),
        el("div", { class: "rl-answer" }, el("div", { class: "rl-name" }, "What you changed"), preview),
        el("div", { class: "rl-row" }, button("Save and next", "Ctrl+Enter", save, { class: "rl-button rl-main" }), comment?.node)],
      keys: [["E", "edit"], ["Delete", "strike out what is selected"], ["Esc", "leave the text"], ["Ctrl+Enter", "save"]],
      onKey: (event) => {
        if (isSend(event)) return save(), true;
        if (!isTyping(event.target) && event.key.toLowerCase() === "e") return text.focus(), true;
        return pressed(event, new Map(), comment);
      },
      onPreview: (reply) => { if (reply.ok) preview.replaceChildren(...difference(original, reply.spans)); },
      onShown: ask,
    };
  },
};

function difference(original, spans) {
  const letters = Array.from(original); // Spans count characters as Python does.
  const nodes = [];
  let at = 0;
  for (const { start, end, text } of spans) {
    nodes.push(letters.slice(at, start).join(""));
    if (end > start) nodes.push(el("del", {}, letters.slice(start, end).join("")));
    if (text) nodes.push(el("ins", {}, text));
    at = end;
  }
  return [...nodes, letters.slice(at).join("")];
}
