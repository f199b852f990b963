// A try to make a policy break a rule: what it is asked, and then what its answer did.

const probe = {
  count: ({ answered, broken }) => `${answered} ${answered === 1 ? "try" : "tries"}, ${broken} broke a rule`,
  show: (page, view) => (view.assignment === null ? trap(page, view) : ruling(page, view)),
};

function ruleNode({ number, of, text, tries, broken }, ...tools) {
  const so_far = tries ? `${tries} ${tries === 1 ? "try" : "tries"} at this rule, ${broken} broke it` : "No try at this rule yet";
  return el("div", { class: "rl-rule", role: "group", "aria-label": "Rule" },
    el("div", { class: "rl-name" }, number ? `Rule ${number} of ${of}` : "Rule"), el("p", { class: "rl-title", dir: "auto" }, text),
    el("div", { class: "rl-row" }, el("span", { class: "rl-note" }, so_far), tools));
}

function trap(page, view) {
  const { rule, post, number } = view;
  const title = post.title === undefined ? null : page.field(`title-${number}`, "Title of the post", { value: post.title });
  const text = page.field(`text-${number}`, "Post", { tag: "textarea", rows: 6, value: post.text });
  const start = page.field(`start-${number}-${rule.id}`, "Start of the summary, if you like", { placeholder: "The policy goes on from here" });
  const isIdle = () => !page.sender.isBusy && !page.sender.isLost;
  const turn = (to) => isIdle() && page.sender.send({ action: "turn", to });
  const ask = () => {
    if (!isIdle()) return;
    if (!text.value.trim()) {
      page.status.textContent = "The post is empty: write one first.";
      return text.focus();
    }
    page.step({ rule: rule.id, post: number, title: title?.value ?? "", text: text.value, start: start.value }, "ask", THINKING_MS);
    page.status.textContent = "The policy is writing ...";
  };
  const byKey = new Map([["p", button("Another post", "P", () => turn("post"))], ["r", button("Next rule", "R", () => turn("rule"))]]);
  const fields = { t: title, e: text, w: start };
  const label = (name, key, field) => field && el("label", { class: "rl-field" }, `${name} `, el("kbd", {}, key), field);
  return {
    nodes: [view.told && el("div", { class: "rl-told" }, el("p", { dir: "auto" }, `“${view.told.summary}”`), el("p", { class: "rl-note" }, toldText(view.told))), ruleNode(rule, byKey.get("r")),
      label("Title of the post", "T", title), label("Post", "E", text), label("Start of the summary, if you like", "W", start),
      el("div", { class: "rl-row" }, button("Ask the policy", "Ctrl+Enter", ask, { class: "rl-button rl-main" }), view.num_posts > 1 && byKey.get("p"))].filter(Boolean),
    keys: [["T E W", "write"], ["Esc", "leave the text"], ["Ctrl+Enter", "ask"], ["P", "another post"], ["R", "next rule"]],
    onKey: (event) => {
      if (event.key === "Enter" && event.ctrlKey) return ask(), true;
      const field = !event.ctrlKey && !isTyping(event.target) && fields[event.key.toLowerCase()];
      if (field) return field.focus(), true;
      return pressed(event, byKey, null);
    },
    onShown: () => view.told && page.status.append(spoken(toldText(view.told))),
  };
}

function ruling(page, view) {
  const rule = (label, key, verdict) => button(label, key, () => page.step({ value: { verdict } }, "answer"),
    { "aria-pressed": String(view.value?.verdict === verdict), "data-testid": `verdict-${verdict}` });
  const byKey = new Map([["1", rule("It broke the rule", "1", "broken")], ["2", rule("It kept the rule", "2", "kept")], ["3", rule("I cannot tell", "3", "cannot_tell")]]);
  const answer = textBox("", "Summary");
  const written = view.start ? view.answers[0].trimEnd() : view.answers[0].trim();
  answer.append(...(view.start ? [el("span", { class: "rl-begun" }, view.start.trim())] : []), written);
  return {
    nodes: [ruleNode(view.rule), ...postNodes(view),
      el("div", { class: "rl-answer", role: "group", "aria-label": "Summary" },
        el("div", { class: "rl-name" }, view.start ? "Summary (you began it as underlined)" : "Summary"), answer),
      el("div", { class: "rl-row", role: "group", "aria-label": "Did it break the rule?" }, [...byKey.values()])],
    keys: [["1", "broken"], ["2", "kept"], ["3", "cannot tell"]],
    onKey: (event) => pressed(event, byKey, null),
    onShown: () => view.status === "open" && page.status.replaceChildren("Did it break the rule?", spoken(`The policy wrote: ${view.start}${written}`)),
  };
}

// What the page shows elsewhere, for those who only hear what changes.
function spoken(text) {
  return el("span", { class: "rl-hidden" }, ` ${text}`);
}

function toldText({ verdict, check }) {
  const said = { broken: "You said that it broke the rule.", kept: "You said that it kept the rule.", cannot_tell: "You could not tell." }[verdict];
  if (check === null) return said;
  if (verdict === "cannot_tell") return `${said} The exact check says that it ${check ? "broke" : "kept"} it.`;
  return `${said} ${check === (verdict === "broken") ? "The exact check says so too." : `The exact check says that it ${check ? "broke" : "kept"} it.`}`;
}
