// What anywidget calls.

const FRONTS = { compare, rank, rate, thumbs, edit, chat, compare_clips, probe };

export default {
  render({ model, el: parent }) {
    const { kind, title } = model.get("setup");
    const root = el("section", { class: "rlhf-label tex2jax_ignore mathjax_ignore", tabindex: "0", role: "group", "aria-label": title,
      "data-kind": kind, "data-testid": "rlhf-label", "data-lm-suppress-shortcuts": true });
    parent.append(root);
    const page = kind === "tamer_pad" ? new Pad(model, root) : new Page(model, root);
    const onMessage = (reply, buffers) => page.receive(reply, buffers);
    // The kernel that this page spoke to is gone, or was restarted.
    const onLive = () => model.comm_live !== true && page.sender.lose();
    model.on("msg:custom", onMessage);
    model.on("comm_live_update", onLive);
    return () => {
      page.close();
      model.off("msg:custom", onMessage);
      model.off("comm_live_update", onLive);
    };
  },
};
