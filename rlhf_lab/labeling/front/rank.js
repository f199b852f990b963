// Several answers in order, the best on top; ties share a place.

const rank = {
  show(page, view) {
    const given = view.value?.ranks;
    const order = view.answers.map((_, index) => ({ index, isTied: false }));
    if (given) {
      order.sort((one, other) => given[one.index] - given[other.index]);
      order.forEach((card, place) => { card.isTied = place > 0 && given[card.index] === given[order[place - 1].index]; });
    }
    return new Ranking(page, view, order).front();
  },
};

class Ranking {
  constructor(page, view, order) {
    Object.assign(this, { page, view, order, comment: page.comment() });
    this.list = el("ol", { class: "rl-list", "aria-label": "Answers, the best first" });
    this.said = el("div", { class: "rl-hidden", role: "status" });
    this.cards = order.map((card) => this.card(card));
    this.draw();
  }

  front() {
    const save = button("Save and next", "Enter", () => this.save(), { class: "rl-button rl-main" });
    return {
      nodes: [...postNodes(this.view), this.list, this.said, el("div", { class: "rl-row" }, save, this.comment?.node)],
      keys: [["Arrow keys", "go to a card"], ["Shift+Arrow", "move it"], ["=", "tie with the one above"], ["Enter", "save"], ...(this.comment ? [["N", "comment"]] : [])],
      onKey: (event) => this.onKey(event),
    };
  }

  card(card) {
    const name = `Answer ${LETTERS[card.index]}`;
    const grip = el("span", { class: "rl-grip", "aria-hidden": "true", title: "Drag" });
    const small = (label, text, action) => el("button", { type: "button", class: "rl-button rl-small", "aria-label": label, onclick: action }, text);
    const tie = small(`Tie ${name} with the one above`, "Tie", () => this.tie(card));
    card.place = el("span", { class: "rl-place" });
    card.tieButton = tie;
    card.node = el("li", { class: "rl-card", tabindex: "0", "data-testid": `card-${LETTERS[card.index]}` },
      el("div", { class: "rl-cardhead" }, grip, card.place, el("span", { class: "rl-name" }, name), el("span", { class: "rl-grow" }),
        tie, small(`Move ${name} up`, "Up", () => this.move(card, -1)), small(`Move ${name} down`, "Down", () => this.move(card, 1))),
      textBox(this.view.answers[card.index], name));
    grip.addEventListener("pointerdown", (event) => this.drag(event, card));
    return card;
  }

  ranks() {
    const ranks = [];
    this.order.forEach((card, place) => { ranks[card.index] = card.isTied ? ranks[this.order[place - 1].index] : place + 1; });
    return ranks;
  }

  draw() {
    this.order[0].isTied = false;
    const ranks = this.ranks();
    this.order.forEach((card, place) => {
      const letter = LETTERS[card.index];
      card.place.textContent = String(ranks[card.index]);
      card.node.classList.toggle("rl-tied", card.isTied);
      card.tieButton.disabled = place === 0;
      card.tieButton.setAttribute("aria-pressed", String(card.isTied));
      card.node.setAttribute("aria-label", `Answer ${letter}, place ${ranks[card.index]} of ${this.order.length}${card.isTied ? ", tied with the one above" : ""}`);
      if (this.list.children[place] !== card.node) this.list.insertBefore(card.node, this.list.children[place] ?? null);
    });
  }

  changed(card) {
    this.draw();
    this.said.textContent = card.node.getAttribute("aria-label");
  }

  move(card, by) {
    const from = this.order.indexOf(card);
    const to = from + by;
    if (to < 0 || to >= this.order.length) return;
    const focused = document.activeElement;
    card.isTied = false;
    if (this.order[from + 1]) this.order[from + 1].isTied &&= from > 0;
    this.order.splice(from, 1);
    this.order.splice(to, 0, card);
    this.changed(card);
    if (this.list.contains(focused)) focused.focus(); // To move a node takes the focus from it.
  }

  tie(card) {
    if (this.order.indexOf(card) === 0) return;
    card.isTied = !card.isTied;
    this.changed(card);
  }

  drag(event, card) {
    event.preventDefault();
    card.node.classList.add("rl-dragged");
    const move = (moved) => {
      const others = this.order.filter((other) => other !== card);
      const middle = (other) => { const box = other.node.getBoundingClientRect(); return box.top + box.height / 2; };
      const to = others.filter((other) => middle(other) < moved.clientY).length;
      if (to !== this.order.indexOf(card)) this.move(card, to - this.order.indexOf(card));
    };
    const ends = ["pointerup", "pointercancel"];
    const stop = () => {
      window.removeEventListener("pointermove", move);
      ends.forEach((end) => window.removeEventListener(end, stop));
      card.node.classList.remove("rl-dragged");
      card.node.focus({ preventScroll: true });
    };
    // On the window: a node that is moved about loses a pointer that it had captured.
    window.addEventListener("pointermove", move);
    ends.forEach((end) => window.addEventListener(end, stop));
  }

  save() {
    this.page.answer({ ranks: this.ranks() }, this.comment?.field.value ?? "");
  }

  onKey(event) {
    if (isTyping(event.target) && !isSend(event)) return false;
    const card = this.order.find((one) => one.node.contains(document.activeElement));
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step && event.shiftKey && card) this.move(card, step);
    else if (step && event.target instanceof HTMLElement && event.target.classList.contains("rl-text")) return false; // It scrolls.
    else if (step) (this.order[card ? this.order.indexOf(card) + step : 0] ?? card)?.node.focus();
    else if (event.key === "=" && card) this.tie(card);
    else if (isSend(event)) this.save();
    else if (event.key.toLowerCase() === "n" && this.comment) this.comment.field.focus();
    else return false;
    return true;
  }
}
