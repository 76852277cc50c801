import { Timers } from "./timers.js";

const LATE = 5000; // credentials that end within this time count as ended

/** The iceServers that the server gives, renewed at half their life. */
export class IceServers {
  /** @type {RTCIceServer[]} */
  servers = [];

  #expires = Infinity;
  #refreshing = null; // a promise, while somebody waits for fresh ones
  #timers = new Timers();
  #ask;
  #changed;

  /**
   * @param {() => Promise<{iceServers: RTCIceServer[], ttlSeconds: number}>} ask asks the server for fresh ones
   * @param {() => void} changed
   */
  constructor(ask, changed) {
    this.#ask = ask;
    this.#changed = changed;
  }

  /** Takes over what the server gave. @param {{iceServers?: RTCIceServer[], ttlSeconds?: number}} given */
  set({ iceServers, ttlSeconds }) {
    const life = ttlSeconds > 0 ? ttlSeconds * 1000 : Infinity;
    this.servers = iceServers ?? [];
    this.#expires = Date.now() + life;
    this.#timers.clear("renew");
    // The largest delay that timers know is 2^31-1 ms.
    if (life < Infinity) this.#timers.after("renew", Math.min(Math.max(life / 2, 1000), 2 ** 31 - 1), () => this.renew());
    this.#changed();
  }

  /** Asks for fresh ones; without a connection, the next welcome or join brings them. */
  async renew() {
    try {
      this.set(await this.#ask());
    } catch (error) {
      if (error.code === "busy" || error.code === "rate-limited") this.#timers.after("renew", 2000, () => this.renew());
    }
  }

  /** Renews credentials that have run out, after the machine has slept for one; once for all who ask at the same time. */
  async ensureFresh() {
    if (Date.now() <= this.#expires - LATE) return;
    this.#refreshing ??= this.renew().finally(() => (this.#refreshing = null));
    await this.#refreshing;
  }

  close() {
    this.#timers.clearAll();
  }
}
