import { enqueue } from "./backlog.js";
import { Peer } from "./peer.js";
import { Timers } from "./timers.js";

const RETURN = 60_000; // how long the connection to a peer that vanished is kept for its return
const STRANGER = 4000; // after that, a peer that has not greeted is taken for another kind of client
const AGAIN = 1500; // before something that could not be delivered is said again
const MEASURE = 2000; // between two looks at the paths
const EARLY = { peers: 32, signals: 64, ms: 10_000 }; // signals that came before their sender's presence

/** @typedef {{peer: string, user: string, name: string}} Info a member of a room, as the server describes it */

/**
 * What a client lends its mesh and its peers.
 * @typedef {object} Host
 * @property {string} instance random name of this client, stable over all its sessions
 * @property {string} id own peer id
 * @property {boolean} online whether the server can be reached
 * @property {Promise<void>} ready settled once iceServers are there
 * @property {RTCConfiguration} configuration
 * @property {("audio" | "video")[]} kinds
 * @property {{audio?: MediaStreamTrack | null, video?: MediaStreamTrack | null}} tracks
 * @property {object} media
 * @property {number} videoBitrate for each peer, bits per second
 * @property {typeof RTCPeerConnection} RTCPeerConnection
 * @property {typeof MediaStream | undefined} MediaStream
 * @property {(id: string) => Info | undefined} member who that is, if in a room of ours now
 * @property {(to: string, body: object) => void} send says something to another client of this make
 * @property {() => Promise<void>} freshServers
 * @property {(what: string, error: any) => void} log
 * @property {(name: string, detail: any) => void} emit
 */

/**
 * The peers that this client has connections with, over their comings and goings: who is greeted, who is new, who has come
 * back under another id, who is given up.
 */
export class Mesh {
  /** @type {Map<string, Peer>} by peer id */
  peers = new Map();

  #host;
  #early = new Map(); // peer id -> bodies
  #timers = new Timers();
  #measuring;

  /** @param {Host} host */
  constructor(host) {
    this.#host = host;
    this.#measuring = setInterval(() => {
      for (const peer of this.peers.values()) peer.measure();
    }, MEASURE);
    /** @type {any} */ (this.#measuring).unref?.(); // where there is no page, it must not keep the program alive
  }

  /** Someone is in a room of ours. The one who comes greets those it finds. @param {Info} info @param {boolean} greet */
  meet(info, greet) {
    const known = this.peers.get(info.peer);
    if (known) {
      this.#timers.clear(`return ${known.id}`);
      known.present = true;
      known.update(info);
    } else {
      this.#timers.after(`stranger ${info.peer}`, STRANGER, () => this.#stranger(info.peer));
    }
    if (greet) this.greet(info.peer, false);
    for (const body of this.#takeEarly(info.peer)) this.hear(info.peer, body);
  }

  /** Someone is in no room of ours any more. @param {string} id @param {string} reason "left", "gone", or "" if not known */
  part(id, reason) {
    this.#timers.clear(`stranger ${id}`);
    const peer = this.peers.get(id);
    if (!peer) return;
    peer.present = false;
    // Media between two browsers goes on without the server: it is kept for the case that the peer comes back.
    if (reason === "left" || (reason === "gone" && peer.state !== "connected")) return this.#remove(peer);
    if (!this.#timers.has(`return ${id}`)) this.#timers.after(`return ${id}`, RETURN, () => this.#remove(peer));
    peer.emit("state", peer.state);
  }

  /** Hears what another client of this make said. @param {string} from @param {any} body */
  hear(from, body) {
    const info = this.#host.member(from);
    if (!info) return this.#keep(from, body);
    this.#timers.clear(`stranger ${from}`);
    const instance = typeof body.instance === "string" ? body.instance.slice(0, 64) : undefined;
    const peer = this.peers.get(from) ?? this.#returned(info, instance) ?? this.#add(info, instance);
    peer.instance ??= instance;
    peer.receive(body);
  }

  /** @param {string} id @param {boolean} reply */
  greet(id, reply) {
    const greeting = this.peers.get(id)?.greeting() ?? { greet: true };
    this.#host.send(id, reply ? { ...greeting, reply } : greeting);
  }

  /** What was lost may have been an offer: it is said again while the peer is still in a room. @param {string} id */
  undelivered(id) {
    this.#timers.after(`again ${id}`, AGAIN, () => {
      if (this.#host.member(id)) this.greet(id, false);
    });
  }

  /** The session with the server goes on where it was. */
  resumed() {
    for (const peer of this.peers.values()) peer.catchUp();
  }

  /** The session with the server was lost: who is still there is not known, and the relay may have gone with it. */
  lost() {
    for (const id of [...this.#early.keys()]) this.#takeEarly(id);
    for (const peer of this.peers.values()) peer.serverLost();
  }

  /** The server's relay has other addresses now. */
  serverMoved() {
    for (const peer of this.peers.values()) peer.relayMoved();
  }

  /** Lets those go who are in no room of ours. @param {string} reason as for part */
  sweep(reason) {
    for (const peer of [...this.peers.values()]) if (!this.#host.member(peer.id)) this.part(peer.id, reason);
  }

  close() {
    clearInterval(this.#measuring);
    this.#timers.clearAll();
    for (const peer of [...this.peers.values()]) this.#remove(peer);
  }

  /** Presence and signals may come over different ways in a cluster: the presence is given some time. */
  #keep(from, body) {
    if (!this.#early.has(from)) {
      if (this.#early.size >= EARLY.peers) this.#takeEarly(this.#early.keys().next().value); // who has waited longest
      this.#early.set(from, []);
      this.#timers.after(`early ${from}`, EARLY.ms, () => this.#early.delete(from));
    }
    enqueue(this.#early.get(from), body, EARLY.signals);
  }

  #takeEarly(from) {
    const bodies = this.#early.get(from) ?? [];
    this.#timers.clear(`early ${from}`);
    this.#early.delete(from);
    return bodies;
  }

  /** Someone who has not greeted may be a client of another make: it gets an offer. */
  #stranger(id) {
    const info = this.#host.member(id);
    if (info && !this.peers.has(id)) this.#add(info).start();
  }

  /** The peer whom this instance was before it came back with a new id. Only the same user may take that place. */
  #returned(info, instance) {
    if (!instance) return undefined;
    for (const peer of this.peers.values()) {
      if (peer.instance !== instance || peer.user !== info.user || this.#host.member(peer.id)) continue;
      const old = peer.id;
      this.#timers.clear(`return ${old}`);
      this.peers.delete(old);
      this.peers.set(info.peer, peer);
      peer.present = true;
      peer.update(info);
      this.#host.emit("peer-changed", { peer, old });
      return peer;
    }
    return undefined;
  }

  #add(info, instance) {
    const peer = new Peer(this.#host, info);
    peer.instance = instance;
    this.peers.set(peer.id, peer);
    peer.on("path", (path) => this.#host.emit("path", { peer, path }));
    peer.on("chat", ({ text }) => this.#host.emit("chat", { peer, text }));
    this.#host.emit("peer", peer);
    return peer;
  }

  #remove(peer) {
    this.#timers.clear(`return ${peer.id}`);
    if (this.peers.get(peer.id) !== peer) return;
    this.peers.delete(peer.id);
    peer.close();
    this.#host.emit("peer-gone", peer);
  }
}
