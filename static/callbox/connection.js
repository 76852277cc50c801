import { Emitter } from "./emitter.js";
import { Timers } from "./timers.js";

/** An answer that is an error, or a connection that has ended. `code` is one of docs/protocol.md, or one of ours. */
export class CallboxError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "CallboxError";
    this.code = code;
  }
}

const NUMBERED = new Set(["join", "leave", "signal", "broadcast", "call", "accept", "decline", "cancel", "ice-servers"]);
const EXPIRED = 4001;
/** Close codes after which coming back is wrong or useless, and what to say. */
const FINAL = new Map([
  [1000, ["closed", "the session has ended"]],
  [4000, ["protocol", "the server found too many faults in what this client sent"]],
  [EXPIRED, ["unauthorized", "the login or token has expired or was revoked"]],
  [4002, ["replaced", "the session goes on in another connection"]],
]);
const OPEN = 1;
const BACKOFF = { first: 500, most: 10_000 };
const ACK = { messages: 32, characters: 16_384, ms: 1000 };
const OUTBOX = 512; // requests kept while there is no connection
const SILENCE = { ping: 20_000, drop: 10_000 };
const HANDSHAKE = 15_000;

/**
 * One callbox.v1 session over as many WebSockets as it takes: hello and resume, numbers and acknowledgements both ways,
 * requests and their answers, reconnecting with jittered backoff.
 *
 * Events: "state" (idle, connecting, open, reconnecting, closed), "welcome" (the message), "message" (any other message
 * from the server, each once and in order), "log" ({what, error}: a fault that it gets over), "closed" (CallboxError; it will
 * not come back by itself).
 */
export class Connection extends Emitter {
  /** @type {"idle" | "connecting" | "open" | "reconnecting" | "closed"} */
  state = "idle";

  #options;
  #socket = null; // the current WebSocket; older ones are ignored
  #welcomed = false; // on the current socket
  #resume = ""; // the session's token, "" before the first welcome
  #handled = 0; // highest server number handled
  #acked = 0; // highest one acknowledged
  #unackedCharacters = 0;
  #sent = 0; // highest client number given out
  #outbox = []; // numbered messages the server has not confirmed
  #pending = new Map(); // id -> {resolve, reject}
  #requests = 0;
  #attempts = 0; // connections begun or given up: what comes late belongs to an earlier one
  #failures = 0; // connections in a row that were not welcomed
  #renewing = false; // the token has run out, and no connection with a fresh one was welcomed yet
  #timers = new Timers();

  /**
   * @param {object} options
   * @param {string} options.url of the WebSocket
   * @param {string} options.api of an HTTP resource that answers 401 to those who may not connect
   * @param {string | (() => string | Promise<string>)} [options.token] room token, or what gives a fresh one: it is
   *   asked before every connection, and again if it takes longer than a handshake may
   * @param {string} [options.name] display name
   * @param {typeof WebSocket} options.WebSocket
   * @param {typeof fetch} [options.fetch]
   * @param {() => number} [options.random] in [0, 1)
   */
  constructor(options) {
    super();
    this.#options = { random: Math.random, ...options };
  }

  start() {
    if (this.state !== "idle") return;
    this.#setState("connecting");
    this.#open();
  }

  /** Tries again now instead of after the backoff; for the moment when the network is known to be back. */
  retry() {
    if (this.#timers.has("backoff")) this.#open();
  }

  /** Ends the session for good; others see this peer leave at once. */
  close() {
    if (this.state === "closed") return;
    this.#farewell();
    this.#finish(new CallboxError("closed", "the client was closed"));
  }

  /**
   * Begins a new session under another display name; the server takes none in a session that goes on.
   * @param {string} name
   */
  renew(name) {
    this.#options.name = name;
    if (this.state === "idle" || this.state === "closed") return;
    this.#farewell();
    this.#resume = "";
    this.#setState("connecting");
    this.#open();
  }

  /**
   * Sends a message; a numbered one is kept until the server has it, across reconnections of the same session.
   * @param {object} message
   * @returns {boolean} whether it was sent or kept
   */
  send(message) {
    if (this.state === "closed" || !this.#resume) return false;
    if (NUMBERED.has(message.type)) {
      if (this.#outbox.length >= OUTBOX) return false;
      message = { ...message, seq: ++this.#sent };
      this.#outbox.push(message);
    } else if (!this.#welcomed) {
      return false;
    }
    if (this.#welcomed) this.#write(message);
    return true;
  }

  /**
   * Sends a request and gives its answer.
   * @param {object} message without id
   * @returns {Promise<any>} rejects with a CallboxError
   */
  request(message) {
    const id = String(++this.#requests);
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      if (this.send({ ...message, id })) return;
      this.#pending.delete(id);
      reject(new CallboxError("not-connected", `${message.type}: not connected`));
    });
  }

  #farewell() {
    if (this.#socket?.readyState !== OPEN) return;
    this.#write({ type: "bye" });
    this.#socket.close(1000);
  }

  async #open() {
    if (this.state === "closed") return; // by a listener, a moment ago
    this.#timers.clear("backoff");
    this.#drop();
    const attempt = this.#attempts;
    this.#timers.after("silence", HANDSHAKE, () => this.#lost());
    if (this.state === "open") this.#setState("reconnecting");
    let token;
    try {
      token = await this.#token();
    } catch (error) {
      this.emit("log", { what: "token", error });
      if (attempt === this.#attempts) this.#lost();
      return;
    }
    if (attempt !== this.#attempts) return;
    const { WebSocket, url } = this.#options;
    let socket;
    try {
      socket = new WebSocket(url, token ? ["callbox.v1", `token.${token}`] : ["callbox.v1"]);
    } catch (error) {
      // The next one would fare no better: the address, or a token that is none.
      return this.#finish(new CallboxError("refused", `no connection can be opened: ${error.message}`));
    }
    this.#socket = socket;
    const mine = (f) => (event) => {
      if (this.#socket === socket) f(event);
    };
    socket.onopen = mine(() => this.#write(this.#hello()));
    socket.onmessage = mine((event) => this.#receive(event.data));
    socket.onclose = mine((event) => this.#lost(event.code));
    // Node's WebSocket says of a refused handshake that it is an error, and no more; others close after it.
    socket.onerror = mine(() => this.#welcomed || this.#lost());
  }

  async #token() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  #hello() {
    const { name } = this.#options;
    const resume = this.#resume ? { token: this.#resume, seq: this.#handled } : undefined;
    return { type: "hello", resume, name: name || undefined };
  }

  #write(message) {
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(message));
  }

  #receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // not from a callbox server; the silence timer ends this connection if nothing better follows
    }
    if (typeof message?.type !== "string") return;
    this.#listen();
    if (message.type === "welcome") return this.#welcome(message);
    if (typeof message.seq === "number" && message.type !== "ack") {
      if (message.seq <= this.#handled) return; // replayed, and handled before
      this.#handled = message.seq;
      this.#dispatch(message);
      this.#acknowledge(text.length);
      return;
    }
    this.#dispatch(message);
  }

  #dispatch(message) {
    switch (message.type) {
      case "ack":
        this.#confirm(message.seq);
        return;
      case "pong":
        this.#confirm(message.received);
        return;
      case "goaway":
        this.#timers.after("backoff", this.#options.random() * (message.afterMs ?? 0), () => this.#open());
        return;
    }
    const waiting = message.id === undefined ? undefined : this.#pending.get(message.id);
    if (waiting) {
      this.#pending.delete(message.id);
      if (message.type === "error") waiting.reject(new CallboxError(message.code, message.message));
      else if (message.type === "undeliverable") waiting.reject(new CallboxError(message.reason, `peer: ${message.reason}`));
      else waiting.resolve(message);
    }
    this.emit("message", message);
  }

  #welcome(message) {
    this.#failures = 0;
    this.#renewing = false;
    this.#welcomed = true;
    this.#resume = message.resume;
    if (message.resumed) {
      this.#confirm(message.received);
      for (const kept of this.#outbox) this.#write(kept);
    } else {
      this.#handled = message.seq ?? 0;
      this.#acked = 0;
      this.#sent = 0;
      this.#outbox = [];
      this.#rejectAll(new CallboxError("session-lost", "the session was lost; it has begun anew"));
    }
    this.#acknowledge(0);
    this.#setState("open");
    if (this.#welcomed) this.emit("welcome", message); // else a listener has closed it
  }

  #confirm(received) {
    if (typeof received !== "number") return;
    while (this.#outbox.length > 0 && this.#outbox[0].seq <= received) this.#outbox.shift();
  }

  #acknowledge(characters) {
    if (this.#handled === this.#acked) return;
    this.#unackedCharacters += characters;
    const due = this.#handled - this.#acked >= ACK.messages || this.#unackedCharacters >= ACK.characters;
    const send = () => {
      this.#timers.clear("ack");
      if (!this.#welcomed) return;
      this.#acked = this.#handled;
      this.#unackedCharacters = 0;
      this.#write({ type: "ack", seq: this.#handled });
    };
    if (due) send();
    // Half the time allowed: timers are late, and the message travels.
    else if (!this.#timers.has("ack")) this.#timers.after("ack", ACK.ms / 2, send);
  }

  /** Notices a connection that has died without a word. */
  #listen() {
    this.#timers.after("silence", SILENCE.ping, () => {
      this.#write({ type: "ping" });
      this.#timers.after("silence", SILENCE.drop, () => this.#lost());
    });
  }

  #lost(code) {
    const welcomed = this.#welcomed;
    this.#drop();
    if (this.state === "closed") return;
    // A token that has run out says nothing of the next one, where there is a source of them: that one gets its try.
    const renewed = this.#renewing;
    this.#renewing ||= code === EXPIRED && typeof this.#options.token === "function";
    const final = this.#renewing && !renewed ? undefined : FINAL.get(code);
    if (final) return this.#finish(new CallboxError(final[0], final[1]));
    if (code === 4004) this.#failures = Math.max(this.#failures, 4); // over the rate: come back late
    if (!welcomed) this.#failures++;
    const wait = Math.min(BACKOFF.first * 2 ** this.#failures, BACKOFF.most) * (0.5 + this.#options.random());
    this.#timers.after("backoff", code === 4003 || code === 4005 ? wait / 4 : wait, () => this.#open());
    // A browser does not say why a handshake was refused: every second time, or where it is likely, ask in a way that does.
    if (!welcomed && (renewed || this.#failures % 2 === 0)) this.#checkRefusal();
    this.#setState(this.#resume ? "reconnecting" : "connecting"); // last, for a listener may close it
  }

  async #checkRefusal() {
    const { fetch, api } = this.#options;
    if (!fetch) return;
    try {
      const token = await this.#token();
      const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
      const answer = await fetch(api, { headers, cache: "no-store" });
      if (answer.status !== 401) return;
      const refusal = await answer.json().catch(() => null);
      if (this.#welcomed) return;
      this.#finish(new CallboxError("unauthorized", refusal?.error?.message ?? "the login or token is not valid any more"));
    } catch {
      // Not reachable: that is what the backoff is for.
    }
  }

  /** Lets go of the current socket without ending the session. */
  #drop() {
    this.#attempts++;
    const socket = this.#socket;
    this.#socket = null;
    this.#welcomed = false;
    this.#timers.clear("silence");
    this.#timers.clear("ack");
    // Without a code: 1000 would end the session.
    if (socket && socket.readyState <= OPEN) socket.close();
  }

  #finish(error) {
    if (this.state === "closed") return;
    this.#drop();
    this.#timers.clearAll();
    this.#outbox = [];
    this.#rejectAll(error);
    this.#setState("closed");
    this.emit("closed", error);
  }

  #rejectAll(error) {
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) reject(error);
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit("state", state);
  }
}
