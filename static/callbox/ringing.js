/**
 * A call that this client has begun.
 * @typedef {object} Outgoing
 * @property {string} call
 * @property {string} user
 * @property {string} room where to meet
 * @property {Promise<{accepted: boolean, reason: string, by?: {peer: string, user: string, name: string}}>} answer
 *   reason: "accepted", "declined", "timeout", "cancelled", or "lost" with the session
 * @property {() => void} cancel
 */

/**
 * Calling users by name, and being called. The client's "ring" event carries {call, from, room, expiresAt, accept,
 * decline}; accept gives a promise of {room} and rejects if the call is over.
 */
export class Ringing {
  #connection;
  #emit;
  #outgoing = new Map(); // call id -> {answer, settle}
  #incoming = new Set(); // call ids

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {(name: string, detail: any) => void} emit
   */
  constructor(connection, emit) {
    this.#connection = connection;
    this.#emit = emit;
  }

  /** @param {string} user @param {string} room @returns {Promise<Outgoing>} */
  async call(user, room) {
    const { call } = await this.#connection.request({ type: "call", user, room });
    const { answer } = this.#outgoing.get(call); // there since "calling", and perhaps settled by now
    answer.then(() => this.#outgoing.delete(call));
    const cancel = () => {
      this.#settle(call, { accepted: false, reason: "cancelled" });
      this.#connection.send({ type: "cancel", call });
    };
    return { call, user, room, answer, cancel };
  }

  /** Handles a message of the server that concerns calls. @param {any} message */
  received(message) {
    const { call } = message;
    switch (message.type) {
      case "calling": {
        let settle;
        const answer = new Promise((resolve) => (settle = resolve));
        this.#outgoing.set(call, { answer, settle });
        return;
      }
      case "ring":
        this.#incoming.add(call);
        this.#emit("ring", {
          call,
          from: message.from,
          room: message.room,
          expiresAt: message.expiresAt,
          accept: async () => {
            this.#incoming.delete(call);
            const { room } = await this.#connection.request({ type: "accept", call });
            return { room };
          },
          decline: () => {
            this.#incoming.delete(call);
            this.#connection.send({ type: "decline", call });
          },
        });
        return;
      case "ring-ended":
        this.#settle(call, { accepted: false, reason: message.reason });
        if (this.#incoming.delete(call)) this.#emit("ring-ended", { call, reason: message.reason });
        return;
      case "accepted":
        this.#settle(call, { accepted: true, reason: "accepted", by: message.by });
        return;
      case "declined":
        this.#settle(call, { accepted: false, reason: message.reason, by: message.by });
    }
  }

  /** The session has gone, and its calls with it. */
  lost() {
    for (const call of [...this.#outgoing.keys()]) this.#settle(call, { accepted: false, reason: "lost" });
    for (const call of this.#incoming) this.#emit("ring-ended", { call, reason: "lost" });
    this.#incoming.clear();
  }

  #settle(call, result) {
    this.#outgoing.get(call)?.settle(result);
  }
}
