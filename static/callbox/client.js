import { CallboxError, Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { IceServers } from "./ice.js";
import { Mesh } from "./mesh.js";
import { randomName } from "./random.js";
import { Ringing } from "./ringing.js";
import { Timers } from "./timers.js";

// In a mesh everyone sends to everyone: video shares an uplink, in bits per second, and each gets a little at least.
const UPLINK = 3_000_000;
const LEAST_VIDEO = 200_000;
const MOVED = 500; // before relays are renewed, so that both ends know the new servers
const NO_SESSION = new Set(["session-lost", "not-connected", "closed"]); // codes of requests that ended with their session
const ICE_WAIT = 3000; // how long a first offer waits for the room's iceServers

/**
 * A client of one callbox server: it joins rooms and keeps a media connection to every other member.
 *
 * Events:
 * - "state": "connecting", "open", "reconnecting" or "closed", of the connection with the server
 * - "peer" (Peer), "peer-gone" (Peer), "peer-changed" ({peer, old}: it came back with a new id)
 * - "path" ({peer, path}), "chat" ({peer, text})
 * - "signal" ({from, data}), "broadcast" ({room, from, data}), "undeliverable" ({to, reason}): an application's own messages
 * - "ring" (see Ringing), "ring-ended" ({call, reason})
 * - "room-lost" ({room, error}): it could not be joined again
 * - "log" ({what, error}): faults that were got over; worth showing to developers only
 * - "closed" (CallboxError): it will not come back by itself
 */
export class Client extends Emitter {
  /** @type {string} own peer id, "" before the first welcome */
  id = "";
  /** @type {string} who the server says this is */
  user = "";
  /** @type {string} own display name */
  name = "";
  /** @type {Record<string, number>} the server's limits */
  limits = {};

  #options;
  #connection;
  #mesh;
  #ringing;
  #ice;
  #instance = randomName();
  #rooms = new Map(); // name -> {joined, members: Map(id -> Info), promise, resolve, reject}
  #ready = Promise.resolve();
  #tracks = {};
  #media = {};
  #welcome = deferred(); // settled by the first welcome
  #timers = new Timers();

  /**
   * @param {object} [options]
   * @param {string} [options.url] of the server; by default the one this module came from
   * @param {string | (() => string | Promise<string>)} [options.token] room token, or what gives a fresh one: it is asked
   *   before every connection, so that a token which runs out costs the session, and not the client
   * @param {string} [options.name] display name
   * @param {RTCIceTransportPolicy} [options.iceTransportPolicy] "relay" keeps the own addresses from the others
   * @param {boolean} [options.audio] whether audio is sent and received; true by default
   * @param {boolean} [options.video] the same for video
   * @param {{iceServers?: RTCIceServer[], ttlSeconds?: number}} [options.ice] to begin with, if already known
   * @param {typeof WebSocket} [options.WebSocket]
   * @param {typeof RTCPeerConnection} [options.RTCPeerConnection]
   * @param {typeof MediaStream} [options.MediaStream]
   * @param {typeof fetch} [options.fetch]
   * @param {() => number} [options.random]
   */
  constructor(options = {}) {
    super();
    const here = globalThis;
    this.name = options.name ?? "";
    this.#options = {
      WebSocket: here.WebSocket,
      RTCPeerConnection: here.RTCPeerConnection,
      MediaStream: here.MediaStream,
      fetch: here.fetch?.bind(here),
      audio: true,
      video: true,
      ...options,
    };
    const { socket, api } = addresses(this.#options.url);
    const emit = (name, detail) => this.emit(name, detail);
    this.#connection = new Connection({ ...this.#options, url: socket, api });
    this.#connection.on("state", (state) => this.emit("state", state));
    this.#connection.on("welcome", (message) => this.#welcomed(message));
    this.#connection.on("message", (message) => this.#received(message));
    this.#connection.on("log", (fault) => this.emit("log", fault));
    this.#connection.on("closed", (error) => this.#closed(error));
    this.#ringing = new Ringing(this.#connection, emit);
    this.#mesh = new Mesh(this.#host(emit));
    this.#ice = new IceServers(() => this.#askIce([...this.#rooms.keys()].at(-1)), () => this.#configure());
    if (options.ice) this.#ice.set(options.ice);
  }

  /** @type {ReadonlyMap<string, import("./peer.js").Peer>} by peer id */
  get peers() {
    return this.#mesh.peers;
  }

  /** "idle", "connecting", "open", "reconnecting" or "closed". */
  get state() {
    return this.#connection.state;
  }

  /**
   * Connects, if it has not yet; joining and calling do it by themselves.
   * @returns {Promise<void>} settled at the first welcome
   */
  connect() {
    this.#connection.start();
    return this.#welcome.promise;
  }

  /** Tries again now instead of later; for the moment when the network is known to be back. */
  retry() {
    this.#connection.retry();
  }

  /** Leaves everything at once and for good. */
  close() {
    this.#connection.close();
  }

  /**
   * Takes another display name. It costs a new session, and peers their connections: meant for before joining.
   * @param {string} name
   */
  rename(name) {
    this.name = name;
    this.#connection.renew(name);
  }

  /**
   * Joins a room and stays in it over lost connections and restarted servers, until leave or close.
   * @param {string} room
   * @returns {Promise<{room: string, peers: {peer: string, user: string, name: string}[]}>} the members, oneself included
   */
  async join(room) {
    await this.connect();
    if (this.state === "closed") throw new CallboxError("closed", `room ${room}: the client was closed`);
    let entry = this.#rooms.get(room);
    if (!entry) {
      entry = { joined: false, members: new Map(), ...deferred() };
      this.#rooms.set(room, entry);
      this.#sendJoin(room);
    }
    return entry.promise;
  }

  /**
   * Leaves a room; peers who share no other with us are let go at once.
   * @param {string} room
   * @returns {Promise<void>} settled when the server knows; at once where it cannot be reached and is told later
   */
  async leave(room) {
    const entry = this.#rooms.get(room);
    if (!entry) return;
    this.#rooms.delete(room);
    entry.reject(new CallboxError("left", `room ${room}: left`));
    this.#mesh.sweep("left");
    const told = this.#connection.request({ type: "leave", room }).catch((error) => {
      if (!NO_SESSION.has(error.code)) throw error; // else there is nobody in the room any more
    });
    if (this.state === "open") return told;
    told.catch((error) => this.emit("log", { what: "leave", error }));
  }

  /**
   * Sends this stream's first audio and first video track to every peer from now on, instead of what was sent before.
   * @param {MediaStream | {audio?: MediaStreamTrack | null, video?: MediaStreamTrack | null} | null} source
   */
  publish(source) {
    if (!source) this.#tracks = {};
    else if ("getTracks" in source) this.#tracks = { audio: source.getAudioTracks()[0], video: source.getVideoTracks()[0] };
    else this.#tracks = { audio: source.audio, video: source.video };
    for (const peer of this.peers.values()) peer.setTracks();
  }

  /** Tells every peer what the own microphone, camera and screen do. @param {object} media small, JSON */
  announce(media) {
    this.#media = { ...media };
    for (const peer of this.peers.values()) peer.announce();
  }

  /** Sends a chat message to every peer. @param {string} text @returns {number} how many were reached */
  chat(text) {
    let reached = 0;
    for (const peer of this.peers.values()) if (peer.chat(text)) reached++;
    return reached;
  }

  /** Sends an application's own JSON to one peer. @param {string} to @param {any} data @returns {boolean} */
  signal(to, data) {
    return this.#connection.send({ type: "signal", to, data });
  }

  /** Sends an application's own JSON to a room. @param {string} room @param {any} data @returns {boolean} */
  broadcast(room, data) {
    return this.#connection.send({ type: "broadcast", room, data });
  }

  /**
   * Rings a user, wherever that user is connected.
   * @param {string} user @param {string} room where to meet
   * @returns {Promise<import("./ringing.js").Outgoing>} once it rings; rejects with code "unavailable" if nobody is there
   */
  async call(user, room) {
    await this.connect();
    return this.#ringing.call(user, room);
  }

  /** Whether media may go directly ("all") or through a relay only ("relay"); for connections made from now on, and at the next ICE restart. */
  setIceTransportPolicy(policy) {
    this.#options.iceTransportPolicy = policy;
    this.#configure();
  }

  #welcomed(message) {
    this.id = message.peer;
    this.user = message.user;
    this.name = message.name;
    this.limits = message.limits ?? {};
    if (message.iceServers) this.#ice.set(message);
    if (message.resumed) {
      this.#mesh.resumed();
    } else {
      this.#ringing.lost();
      for (const entry of this.#rooms.values()) entry.members.clear();
      this.#mesh.lost();
      for (const room of this.#rooms.keys()) this.#sendJoin(room);
    }
    this.#welcome.resolve();
  }

  #received(message) {
    switch (message.type) {
      case "joined":
        return this.#joined(message);
      case "peer-joined":
        return this.#peerJoined(message);
      case "peer-left":
        return this.#peerLeft(message);
      case "ice-servers":
        if (message.id !== undefined) return; // whoever asked has got them
        // The server's addresses have changed. The others are told at about the same time.
        this.#ice.set(message);
        this.#timers.after("moved", MOVED, () => this.#mesh.serverMoved());
        return;
      case "room-changed":
        if (this.#rooms.has(message.room)) this.#ice.renew();
        return;
      case "signal":
        if (message.data?.callbox && typeof message.data.callbox === "object") return this.#mesh.hear(message.from, message.data.callbox);
        return this.emit("signal", { from: message.from, data: message.data });
      case "undeliverable":
        if (message.reason !== "not-in-room") this.#mesh.undelivered(message.to);
        return this.emit("undeliverable", { to: message.to, reason: message.reason });
      case "broadcast":
        return this.emit("broadcast", { room: message.room, from: message.from, data: message.data });
      case "error":
        if (message.id !== undefined) return; // whoever asked has been told
        return this.emit("log", { what: "server", error: new CallboxError(message.code, message.message) });
      default:
        return this.#ringing.received(message);
    }
  }

  #closed(error) {
    this.#timers.clearAll();
    this.#ice.close();
    this.#mesh.close();
    for (const entry of this.#rooms.values()) entry.reject(error);
    this.#rooms.clear();
    this.#welcome.reject(error);
    this.#ringing.lost();
    this.emit("closed", error);
  }

  async #sendJoin(room) {
    const joined = this.#connection.request({ type: "join", room });
    // The room's relay comes first in the servers for it, and is chosen by the join before.
    const asked = this.#askIce(room).then((given) => this.#ice.set(given), () => {});
    const late = new Promise((resolve) => this.#timers.after(`ice ${room}`, ICE_WAIT, () => resolve(undefined)));
    this.#ready = Promise.race([asked, late]);
    try {
      await joined;
    } catch (error) {
      this.#notJoined(room, error);
    }
  }

  #notJoined(room, error) {
    const entry = this.#rooms.get(room);
    // A lost session is begun anew, and the rooms are joined then.
    if (!entry || NO_SESSION.has(error.code)) return;
    if (error.code === "busy" || error.code === "rate-limited") {
      this.#timers.after(`join ${room}`, 1000, () => this.#rooms.has(room) && this.#sendJoin(room));
      return;
    }
    this.#rooms.delete(room);
    entry.reject(error);
    this.#mesh.sweep("left");
    if (entry.joined) this.emit("room-lost", { room, error });
  }

  #joined(message) {
    const entry = this.#rooms.get(message.room);
    if (!entry) return;
    entry.members = new Map(message.peers.filter((info) => info.peer !== message.you).map((info) => [info.peer, info]));
    entry.joined = true;
    entry.resolve({ room: message.room, peers: message.peers });
    for (const info of entry.members.values()) this.#mesh.meet(info, true);
    this.#mesh.sweep("");
  }

  #peerJoined({ room, peer }) {
    const entry = this.#rooms.get(room);
    if (!entry || peer.peer === this.id) return;
    entry.members.set(peer.peer, peer);
    this.#mesh.meet(peer, false);
  }

  #peerLeft({ room, peer, reason }) {
    if (this.#rooms.get(room)?.members.delete(peer) && !this.#member(peer)) this.#mesh.part(peer, reason);
  }

  #member(id) {
    for (const { members } of this.#rooms.values()) {
      const info = members.get(id);
      if (info) return info;
    }
    return undefined;
  }

  #askIce(room) {
    return this.#connection.request({ type: "ice-servers", room });
  }

  #configure() {
    for (const peer of this.peers.values()) peer.configure();
  }

  /** @returns {import("./mesh.js").Host} */
  #host(emit) {
    const client = this;
    const options = this.#options;
    return {
      emit,
      instance: client.#instance,
      kinds: /** @type {("audio" | "video")[]} */ (["audio", "video"]).filter((kind) => options[kind]),
      RTCPeerConnection: options.RTCPeerConnection,
      MediaStream: options.MediaStream,
      get id() { return client.id; },
      get online() { return client.#connection.state === "open"; },
      get ready() { return client.#ready; },
      get tracks() { return client.#tracks; },
      get media() { return client.#media; },
      get videoBitrate() { return Math.max(Math.round(UPLINK / Math.max(client.peers.size, 1)), LEAST_VIDEO); },
      get configuration() {
        return { iceServers: client.#ice.servers, iceTransportPolicy: options.iceTransportPolicy ?? "all", bundlePolicy: /** @type {const} */ ("max-bundle") };
      },
      member: (id) => client.#member(id),
      send: (to, body) => client.#connection.send({ type: "signal", to, data: { callbox: { instance: client.#instance, ...body } } }),
      freshServers: () => client.#ice.ensureFresh(),
      log: (what, error) => emit("log", { what, error }),
    };
  }
}

/** The WebSocket and the HTTP address of a server. */
function addresses(given) {
  const socket = new URL(given ?? "/ws", given ? globalThis.location?.href : import.meta.url);
  socket.protocol = socket.protocol.replace(/^http/, "ws");
  if (socket.pathname === "/") socket.pathname = "/ws";
  const api = new URL("/api/v1/ice-servers", socket);
  api.protocol = api.protocol.replace(/^ws/, "http");
  return { socket: socket.href, api: api.href };
}

function deferred() {
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  result.promise.catch(() => {}); // it may be rejected when nobody waits for it any more
  return result;
}
