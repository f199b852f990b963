// Two answers, and how much better one is.

const STRENGTHS = ["much better", "better", "slightly better", "barely better"];

function postNodes(view) {
  if (!view.post?.text) return [];
  const { subreddit, title, text } = view.post;
  const box = textBox(text, "Post");
  const head = [subreddit && el("div", { class: "rl-sub", dir: "auto" }, `r/${subreddit}`), title && el("div", { class: "rl-title", dir: "auto" }, title)];
  return [el("div", { class: "rl-post", role: "group", "aria-label": "Post" }, head, box)];
}

function answerNodes(view, names = (index) => `Summary ${LETTERS[index]}`) {
  return view.answers.map((text, index) =>
    el("div", { class: "rl-answer", role: "group", "aria-label": names(index) }, el("div", { class: "rl-name" }, names(index)), textBox(text, names(index))));
}

const compare = {
  show(page, view) {
    return view.is_hidden ? interpretation(page, view) : comparison(page, view);
  },
};

function comparison(page, view) {
  const { scale, tie, cannot_compare: cannot } = page.options;
  const comment = page.comment();
  const labels = [...STRENGTHS.map((how) => `A ${how}`), ...(scale === 9 ? ["undecided"] : []), ...STRENGTHS.map((how) => `B ${how}`).reverse()];
  const is = (value) => JSON.stringify(view.value) === JSON.stringify(value);
  const choose = (label, key, value) => {
    const isPressed = view.value && (value.choice ? is(value) : view.value.scale === value.scale && view.value.step === value.step);
    return button(label, key, () => page.answer(value, comment?.field.value ?? ""), { "aria-pressed": String(Boolean(isPressed)), "data-testid": `choice-${key}` });
  };
  const steps = labels.map((label, index) => choose(label, String(index + 1), { scale, step: index + 1 }));
  const others = [tie && choose("They are equally good", "T", { choice: "tie" }), cannot && choose("They cannot be compared", "C", { choice: "cannot_compare" })];
  const byKey = new Map([...steps.map((node, index) => [String(index + 1), node]), ["t", others[0]], ["c", others[1]]]);
  return {
    nodes: [...postNodes(view), el("div", { class: "rl-pair" }, answerNodes(view)),
      el("div", { class: `rl-scale rl-scale-${scale}`, role: "group", "aria-label": "Which summary is better?" }, steps),
      el("div", { class: "rl-row" }, others, comment?.node)],
    keys: [[`1 to ${scale}`, "choose"], ...(tie ? [["T", "tie"]] : []), ...(cannot ? [["C", "cannot compare"]] : []), ...(comment ? [["N", "comment"]] : [])],
    onKey: (event) => pressed(event, byKey, comment),
  };
}

// Clicks the button of a key; N goes to the comment.
function pressed(event, byKey, comment) {
  if (event.ctrlKey || isTyping(event.target)) return false;
  const key = event.key.toLowerCase();
  if (key === "n" && comment) return comment.field.focus() ?? true;
  const node = byKey.get(key);
  if (!node) return false;
  node.click();
  return true;
}

// The naive interpretation: what the summaries say to somebody who does not know the post.
function interpretation(page, view) {
  const fields = view.answers.map((_, index) => page.field(`interpretation-${index}`, `What do you understand from summary ${LETTERS[index]}?`, { tag: "textarea" }));
  const send = () => {
    const empty = fields.find((field) => !field.value.trim());
    if (empty) return empty.focus();
    page.step({ value: { interpretation: fields.map((field) => field.value.trim()) } });
  };
  const cards = answerNodes(view);
  cards.forEach((card, index) => card.append(el("label", { class: "rl-field" }, `What do you understand from summary ${LETTERS[index]}?`, fields[index])));
  return {
    nodes: [el("p", { class: "rl-note" }, "Before you see the post: say in your own words what each summary tells you."),
      el("div", { class: "rl-pair" }, cards), el("div", { class: "rl-row" }, button("Show the post", "Ctrl+Enter", send, { class: "rl-button rl-main" }))],
    keys: [["Ctrl+Enter", "show the post"]],
    onKey: (event) => isSend(event) && (send(), true),
    onShown: () => page.hadFocus && fields[0].focus(),
  };
}

function isSend(event) {
  return event.key === "Enter" && (event.ctrlKey || !isTyping(event.target));
}
