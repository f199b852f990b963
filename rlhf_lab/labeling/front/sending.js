// Messages to the kernel, one at a time and in order. What was not confirmed is kept and sent again with the same uid, which
// the store keeps once.

const REPLY_MS = 10000;
const RETRY_MS = [1000, 2000, 4000, 8000];

class Sender {
  constructor(model, onReply, onState) {
    Object.assign(this, { model, onReply, onState, queue: [], isInFlight: false, tries: 0, isLost: false, timer: 0 });
  }

  // waitMs: longer where the kernel has to think, as for a reply in a chat.
  send(message, waitMs = REPLY_MS) {
    this.queue.push({ message: { uid: uid(), ...message }, waitMs });
    this.pump();
  }

  get isBusy() {
    return this.queue.length > 0;
  }

  pump() {
    if (this.isInFlight || this.isLost || !this.queue.length) return;
    const { message, waitMs } = this.queue[0];
    this.isInFlight = true;
    this.onState("saving");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fail("The kernel has not confirmed it. It may be busy with another cell.", true), waitMs);
    try {
      this.model.send(message);
    } catch (error) {
      this.lose();
    }
  }

  receive(reply) {
    if (!this.queue.length || reply.uid !== this.queue[0].message.uid) return; // A second reply to what was sent twice.
    clearTimeout(this.timer);
    if (!reply.ok && reply.retry) return this.fail(reply.error, true);
    const { message } = this.queue.shift();
    this.isInFlight = false;
    this.tries = 0;
    if (!reply.ok) this.queue = []; // What came after was said of a screen that is not there.
    if (reply.ok) this.onState(this.isBusy ? "saving" : "saved");
    else this.onState("failed", reply.error, false);
    this.onReply(message, reply);
    this.pump();
  }

  fail(error, canRetry) {
    clearTimeout(this.timer);
    this.isInFlight = false;
    this.onState("failed", error, canRetry);
    if (canRetry) this.timer = setTimeout(() => this.pump(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
  }

  retry() {
    clearTimeout(this.timer);
    this.pump();
  }

  lose() {
    clearTimeout(this.timer);
    this.isInFlight = false;
    this.isLost = true;
    this.onState("lost", this.queue.length ? "Your last answer was not confirmed: please check it then." : "");
  }
}
