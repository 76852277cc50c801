import { showAvatar } from "./avatar.js";
import { nameOf } from "./people.js";

const TONE = [523, 659]; // hertz; soft, and not to be taken for an alarm

/** The notice that someone is calling, with its buttons and its sound. */
export class RingNotice {
  #box = document.getElementById("ring");
  #ring = null;
  #sound = null;
  #title = document.title;

  /**
   * @param {import("../callbox/client.js").Client} client
   * @param {{consequence: () => string, answered: (room: string) => void, failed: (text: string) => void}} page
   *   consequence says what answering does to the page
   */
  constructor(client, page) {
    client.on("ring", (ring) => {
      if (this.#ring) return; // the first one goes on; the other stays ringing elsewhere or times out
      this.#ring = ring;
      const name = nameOf(ring.from);
      showAvatar(document.getElementById("ring-avatar"), name);
      document.getElementById("ring-title").textContent = `${name} is calling`;
      document.getElementById("ring-text").textContent =
        (ring.from.user === name ? "" : `Logged in as ${ring.from.user}. `) + page.consequence();
      this.#box.hidden = false;
      document.title = `${name} is calling`;
      this.#play();
    });
    client.on("ring-ended", ({ call }) => {
      if (this.#ring?.call === call) this.#end();
    });
    document.getElementById("ring-accept").addEventListener("click", async () => {
      const ring = this.#ring;
      this.#end();
      try {
        page.answered((await ring.accept()).room);
      } catch {
        page.failed("That call has ended already.");
      }
    });
    document.getElementById("ring-decline").addEventListener("click", () => {
      this.#ring?.decline();
      this.#end();
    });
  }

  #end() {
    this.#ring = null;
    this.#box.hidden = true;
    document.title = this.#title;
    clearInterval(this.#sound?.timer);
    this.#sound?.context.close();
    this.#sound = null;
  }

  #play() {
    navigator.vibrate?.([300, 200, 300]);
    if (!globalThis.AudioContext) return;
    const context = new AudioContext();
    const beep = () => {
      // Without a touch on the page before, the browser keeps it silent.
      if (context.state !== "running") return;
      TONE.forEach((frequency, i) => {
        const start = context.currentTime + i * 0.22;
        const gain = context.createGain();
        gain.gain.setValueAtTime(0, start);
        gain.gain.linearRampToValueAtTime(0.08, start + 0.03);
        gain.gain.exponentialRampToValueAtTime(0.0005, start + 0.5);
        const oscillator = context.createOscillator();
        oscillator.frequency.value = frequency;
        oscillator.connect(gain).connect(context.destination);
        oscillator.start(start);
        oscillator.stop(start + 0.55);
      });
    };
    this.#sound = { context, timer: setInterval(beep, 2200) };
    context.resume().then(beep, () => {});
  }
}
