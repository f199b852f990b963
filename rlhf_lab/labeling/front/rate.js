// An answer, graded 1 to 7 on each axis, with flags.

const rate = {
  show(page, view) {
    const { axes, flags } = page.options;
    const comment = page.comment();
    const name = `rl-${uid()}`;
    const rows = Object.entries(axes).map(([axis, definition], place) => axisRow(name, axis, definition, place, view.value?.axes?.[axis]));
    const boxes = flags.map((flag) => el("input", { type: "checkbox", value: flag, checked: Boolean(view.value?.flags?.includes(flag)) }));
    const save = () => {
      const grades = rows.map((row) => [row.axis, row.grade()]);
      const missing = rows.find((row) => !row.grade());
      if (missing) {
        page.status.textContent = `Please rate ${missing.axis} too.`;
        return missing.focus();
      }
      page.answer({ axes: Object.fromEntries(grades), flags: boxes.filter((box) => box.checked).map((box) => box.value) }, comment?.field.value ?? "");
    };
    const flagged = flags.length ? el("fieldset", { class: "rl-flags" }, el("legend", {}, "Flags"),
      boxes.map((box) => el("label", { class: "rl-flag" }, box, ` ${box.value}`))) : null;
    return {
      nodes: [...postNodes(view), ...answerNodes(view, () => "Summary"), ...rows.map((row) => row.node), flagged,
        el("div", { class: "rl-row" }, button("Save and next", "Enter", save, { class: "rl-button rl-main" }), comment?.node)].filter(Boolean),
      keys: [["1 to 7", "rate"], ["Arrow keys", "other axis"], ["Enter", "save"], ...(comment ? [["N", "comment"]] : [])],
      onKey: (event) => onRateKey(event, rows, save, comment),
      onShown: () => page.hadFocus && rows[0].focus(),
    };
  },
};

function axisRow(name, axis, definition, place, given) {
  const id = `${name}-${place}`;
  const inputs = [1, 2, 3, 4, 5, 6, 7].map((grade) => el("input", { type: "radio", name: id, value: String(grade), checked: grade === given, "data-testid": `${axis}-${grade}` }));
  const node = el("fieldset", { class: "rl-axis", "aria-describedby": id }, el("legend", {}, axis), el("p", { class: "rl-define", id }, definition),
    el("div", { class: "rl-grades" }, inputs.map((input) => el("label", { class: "rl-grade" }, input, ` ${input.value}`))));
  const chosen = () => inputs.find((input) => input.checked);
  return {
    axis, node,
    grade: () => Number(chosen()?.value ?? 0),
    set: (grade) => { inputs[grade - 1].checked = true; },
    focus: () => (chosen() ?? inputs[0]).focus(),
  };
}

function onRateKey(event, rows, save, comment) {
  if (isTyping(event.target) && !isSend(event)) return false;
  const at = rows.findIndex((row) => row.node.contains(document.activeElement));
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const grade = /^[1-7]$/.test(event.key) ? Number(event.key) : 0;
  if (grade) {
    const row = rows[at] ?? rows.find((one) => !one.grade()) ?? rows[0];
    row.set(grade);
    (rows[rows.indexOf(row) + 1] ?? row).focus();
  } else if (step) rows[Math.min(rows.length - 1, Math.max(0, at + step))].focus();
  else if (isSend(event)) save();
  else if (event.key.toLowerCase() === "n" && comment) comment.field.focus();
  else return false;
  return true;
}
