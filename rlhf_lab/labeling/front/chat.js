// A conversation with two replies to choose from at each turn, and a rating at the end.

const THINKING_MS = 600000;

const chat = {
  show(page, view) {
    const said = view.messages.map(({ role, content }) => message(role, content));
    const task = view.post?.text ? [el("p", { class: "rl-note", dir: "auto" }, view.post.text)] : [];
    const turn = view.offer ? offered(page, view.offer) : speaking(page, view);
    return { ...turn, nodes: [...task, el("div", { class: "rl-chat", role: "log", "aria-label": "Conversation" }, said, turn.said ?? []), ...turn.nodes] };
  },
};

function message(role, content) {
  const who = role === "user" ? "You" : "Assistant";
  return el("div", { class: `rl-message rl-${role}` }, el("div", { class: "rl-name" }, who), textBox(content, who));
}

function offered(page, { text, replies }) {
  const choose = (label, key, chosen) => button(label, key, () => page.step({ value: { chosen } }), { "data-testid": `choice-${key}` });
  const byKey = new Map([["1", choose("Reply A is better", "1", 0)], ["2", choose("Reply B is better", "2", 1)], ["t", choose("Equally good", "T", "tie")]]);
  return {
    said: [message("user", text)],
    nodes: [el("div", { class: "rl-pair" }, answerNodes({ answers: replies }, (index) => `Reply ${LETTERS[index]}`)),
      el("div", { class: "rl-row", role: "group", "aria-label": "Which reply is better?" }, [...byKey.values()])],
    keys: [["1", "reply A"], ["2", "reply B"], ["T", "equally good"]],
    onKey: (event) => pressed(event, byKey, null),
  };
}

function speaking(page, view) {
  const isFirst = !view.messages.length;
  const comment = page.comment();
  const field = page.field(`say-${view.messages.length}`, "Your message", { tag: "textarea", placeholder: isFirst ? "Write a task, or paste a post to summarize" : "Go on" });
  const say = () => {
    if (!field.value.trim()) return field.focus();
    page.step({ text: field.value.trim() }, "say", THINKING_MS);
    page.status.textContent = "Two replies are being written ...";
  };
  const grades = [1, 2, 3, 4, 5, 6, 7].map((rating) => button(rating === 1 ? "bad" : rating === 7 ? "good" : "", String(rating),
    () => page.answer({ rating }, comment?.field.value ?? ""), { "aria-pressed": String(view.value?.rating === rating), "data-testid": `rating-${rating}` }));
  const end = el("div", { class: "rl-end" }, el("p", {}, "Or end here and rate the conversation:"),
    el("div", { class: "rl-row", role: "group", "aria-label": "Rating of the conversation" }, grades), comment?.node);
  const byKey = isFirst ? new Map() : new Map(grades.map((node, index) => [String(index + 1), node]));
  return {
    nodes: [el("label", { class: "rl-field" }, isFirst ? "Your task " : "Your message ", el("kbd", {}, "E"), field),
      el("div", { class: "rl-row" }, button("Send", "Ctrl+Enter", say, { class: "rl-button rl-main" })), isFirst ? null : end].filter(Boolean),
    keys: [["E", "write"], ["Ctrl+Enter", "send"], ...(isFirst ? [] : [["1 to 7", "end and rate"]])],
    onKey: (event) => {
      if (event.key === "Enter" && event.ctrlKey) return say(), true;
      if (!isTyping(event.target) && event.key.toLowerCase() === "e") return field.focus(), true;
      return pressed(event, byKey, comment);
    },
    onShown: () => page.hadFocus && field.focus(),
  };
}
