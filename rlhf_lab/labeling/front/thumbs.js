// Thumbs up or down, and what would have been ideal.

const thumbs = {
  show(page, view) {
    let thumb = view.value?.thumb ?? null;
    const comment = page.comment();
    const ideal = page.field("ideal", "What would an ideal answer have been?", { tag: "textarea", value: view.value?.ideal ?? "" });
    const choose = (which) => {
      thumb = which;
      for (const [name, node] of Object.entries(nodes)) node.setAttribute("aria-pressed", String(name === which));
    };
    const pressedBy = (which) => ({ "aria-pressed": String(thumb === which), class: "rl-button rl-thumb", "data-testid": `thumb-${which}` });
    const nodes = { up: button("Thumbs up", "1", () => choose("up"), pressedBy("up")), down: button("Thumbs down", "2", () => choose("down"), pressedBy("down")) };
    const save = () => {
      if (thumb) return page.answer({ thumb, ideal: ideal.value.trim() }, comment?.field.value ?? "");
      page.status.textContent = "Please choose thumbs up or down first.";
      return nodes.up.focus();
    };
    const byKey = new Map([["1", nodes.up], ["2", nodes.down]]);
    return {
      nodes: [...postNodes(view), ...answerNodes(view, () => "Answer"), el("div", { class: "rl-row", role: "group", "aria-label": "Is it good?" }, nodes.up, nodes.down),
        el("label", { class: "rl-field" }, "What would an ideal answer have been? (if you like) ", el("kbd", {}, "I"), ideal),
        el("div", { class: "rl-row" }, button("Save and next", "Enter", save, { class: "rl-button rl-main" }), comment?.node)],
      keys: [["1", "up"], ["2", "down"], ["I", "ideal answer"], ["Enter", "save"], ["Ctrl+Enter", "save from a text"]],
      onKey: (event) => {
        if (isSend(event)) return save(), true;
        if (!isTyping(event.target) && event.key.toLowerCase() === "i") return ideal.focus(), true;
        return pressed(event, byKey, comment);
      },
    };
  },
};
