import { enqueue } from "./backlog.js";
import { Emitter } from "./emitter.js";
import { PATHS, combinePaths, selectedPath } from "./path.js";
import { randomName } from "./random.js";

const CHAT_LENGTH = 4000; // characters of one chat message
const FRAME_LENGTH = 16_384; // characters of one data channel message that are read
const QUEUE = 256; // signals that wait for one to be handled

/** How long a broken connection may mend by itself before ICE restarts; the polite side gives the other the first try. */
const MEND = { disconnected: [2000, 5000], failed: [0, 3000], again: [8000, 12_000] };

/**
 * Another member of a room and the RTCPeerConnection to it.
 *
 * What two peers tell each other travels in `signal` as {"callbox": {...}} with these fields:
 * `instance`, random for each client and stable over all its sessions, so that one who comes back with a new peer id
 * keeps its RTCPeerConnection; `link`, random for each pair of RTCPeerConnections, so that two that do not belong
 * together are noticed; `greet` (a newcomer to those it finds) with `reply` (the answer to it) and `restart` (the
 * sender's relay has gone); `description` and `candidate` as WebRTC makes them.
 *
 * Of two, the one with the higher instance makes the first offer and wins when offers cross (the impolite one of perfect
 * negotiation). With a peer that sends no instance, the peer ids are compared.
 *
 * Events: "gone", "state", "path", "chat" ({text}), "media" (what the other end says of its microphone and so on),
 * "track", "changed" (id or name).
 */
export class Peer extends Emitter {
  /** @type {string} peer id; a peer that comes back may have a new one */
  id;
  /** @type {string} the user, as the server has authenticated it */
  user;
  /** @type {string} display name */
  name;
  /** @type {string | undefined} random name of the client at the other end, once it is known */
  instance;
  /** @type {boolean} whether it is in a room of ours now, as far as the server knows */
  present = true;
  /** @type {RTCPeerConnection | null} */
  pc = null;
  /** @type {MediaStream | null} its audio and video; the same object for the whole life of the peer */
  stream;
  /** @type {import("./path.js").Path} */
  path = "connecting";
  /** @type {Record<string, any>} what it says of itself: {audio, video, screen} on callbox's own pages */
  media = {};

  #host;
  #channel = null;
  #link; // of the current pc
  #makingOffer = false;
  #ignoringOffer = false;
  #negotiationDue = false; // while the peer or the server could not be reached
  #relayLost = false; // our own relay has gone since the last greeting
  /** @type {import("./path.js").Path} */
  #mine = "connecting"; // path as seen from here
  #theirs; // path as the other end sees it
  #waiting = []; // what the other end said and was not handled yet
  #handling = false;
  #overflowed = false; // since nothing waited
  #mend = null;
  #closed = false;

  /**
   * @param {import("./mesh.js").Host} host
   * @param {{peer: string, user: string, name: string}} info
   */
  constructor(host, info) {
    super();
    this.#host = host;
    this.stream = host.MediaStream ? new host.MediaStream() : null;
    this.id = info.peer;
    this.user = info.user;
    this.name = info.name;
  }

  /** "connecting", "connected", "reconnecting" (the media has stopped) or "closed". */
  get state() {
    if (this.#closed) return "closed";
    const state = this.pc?.connectionState ?? "new";
    if (state === "connected") return "connected";
    return state === "disconnected" || state === "failed" || this.#mine !== "connecting" ? "reconnecting" : "connecting";
  }

  /** Whether this end makes the first offer and wins when offers cross. */
  get impolite() {
    return this.instance ? this.#host.instance > this.instance : this.#host.id > this.id;
  }

  /** Takes over what the server says of the peer. @param {{peer: string, user: string, name: string}} info */
  update(info) {
    const changed = this.id !== info.peer || this.name !== info.name;
    Object.assign(this, { id: info.peer, user: info.user, name: info.name });
    if (changed) this.emit("changed", this);
  }

  /** Sends a chat message over the data channel. @param {string} text @returns {boolean} whether there was a way */
  chat(text) {
    return this.#tell({ type: "chat", text: String(text).slice(0, CHAT_LENGTH) });
  }

  /** Tells what this end's microphone, camera and screen do. */
  announce() {
    this.#tell({ type: "media", media: this.#host.media });
  }

  /** Handles what the other end said, in order. @param {any} body */
  receive(body) {
    const overflows = enqueue(this.#waiting, body, QUEUE);
    if (overflows && !this.#overflowed) this.#host.log("signal", new Error(`${QUEUE} wait to be handled: candidates are let go`));
    this.#overflowed ||= overflows;
    if (!this.#handling) this.#handleAll();
  }

  async #handleAll() {
    this.#handling = true;
    while (this.#waiting.length > 0) {
      await this.#host.ready;
      if (this.#closed) return;
      try {
        await this.#handle(this.#waiting.shift());
      } catch (error) {
        this.#host.log("signal", error);
      }
    }
    this.#handling = this.#overflowed = false;
  }

  /** Makes the first offer of a new connection. */
  start() {
    try {
      this.#open(randomName());
      for (const kind of this.#host.kinds) {
        const transceiver = this.pc.addTransceiver(kind, { direction: "sendrecv" });
        this.#send(transceiver.sender, this.#host.tracks[kind] ?? null);
      }
    } catch (error) {
      this.#host.log("connection", error); // a browser makes so many and no more
    }
  }

  /** Puts the client's current tracks in place; never needs a negotiation. */
  async setTracks() {
    for (const transceiver of this.pc?.getTransceivers() ?? []) {
      const kind = /** @type {"audio" | "video"} */ (transceiver.receiver?.track?.kind);
      if (!this.#host.kinds.includes(kind) || transceiver.direction === "recvonly") continue;
      const track = this.#host.tracks[kind] ?? null;
      if (transceiver.sender.track !== track) await this.#send(transceiver.sender, track);
    }
  }

  async #send(sender, track) {
    await sender.replaceTrack(track).catch((error) => this.#host.log("track", error));
  }

  /** Keeps the video within its share of what the client sends in all. */
  async limitVideo() {
    const sender = this.pc?.getSenders?.().find(({ track }) => track?.kind === "video");
    const parameters = sender?.getParameters();
    const encoding = parameters?.encodings?.[0];
    if (!encoding || encoding.maxBitrate === this.#host.videoBitrate) return;
    encoding.maxBitrate = this.#host.videoBitrate;
    await sender.setParameters(parameters).catch((error) => this.#host.log("bitrate", error));
  }

  /** Gives the connection the client's present iceServers; where the browser refuses them it goes on with those it has. */
  configure() {
    if (!this.pc || this.pc.signalingState === "closed") return;
    try {
      this.pc.setConfiguration(this.#host.configuration);
    } catch (error) {
      this.#host.log("ice-servers", error);
    }
  }

  /** The session with the server was lost, and with it perhaps the relay that this end uses; who is still there will be seen. */
  serverLost() {
    this.present = false;
    this.#relayLost ||= this.#mine.startsWith("relay");
  }

  /** The relay has other addresses: a connection that is not direct looks for a way anew, while the old one goes on. */
  relayMoved() {
    if (this.pc && this.impolite && this.path !== "direct") this.#restart();
  }

  /** What a greeting to this peer says. */
  greeting() {
    return { greet: true, link: this.#link, restart: this.#relayLost || undefined };
  }

  /** Catches up on what could not be said while the peer or the server was away. */
  catchUp() {
    const { pc } = this;
    if (!pc || !this.present) return;
    if (pc.signalingState === "have-local-offer") this.#say({ description: pc.localDescription });
    else if (this.#negotiationDue) this.#negotiate();
    if (pc.connectionState === "failed" || pc.connectionState === "disconnected") this.#watch();
  }

  /** Looks after a connection every few seconds: which way the media takes, and how much it may be. */
  async measure() {
    const { pc } = this;
    if (!pc || pc.connectionState === "closed") return;
    this.limitVideo();
    const stats = await pc.getStats().catch(() => null);
    if (!stats || this.pc !== pc) return;
    const mine = selectedPath(stats);
    if (mine === "connecting" && this.#mine !== "connecting") return; // between two pairs
    if (mine !== this.#mine) {
      this.#mine = mine;
      this.#tell({ type: "path", path: mine });
    }
    this.#setPath();
  }

  /** Ends the connection; the client calls it when the peer has left. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting = [];
    this.#shut();
    this.emit("gone", this);
  }

  #open(link) {
    this.#shut();
    this.#link = link;
    const pc = new this.#host.RTCPeerConnection(this.#host.configuration);
    this.pc = pc;
    const mine = (f) => (event) => {
      if (this.pc === pc && !this.#closed) f(event);
    };
    pc.onnegotiationneeded = mine(() => this.#negotiate());
    pc.onicecandidate = mine(({ candidate }) => this.#say({ candidate }));
    pc.onconnectionstatechange = mine(() => this.#stateChanged());
    pc.ontrack = mine(({ track }) => {
      for (const old of this.stream?.getTracks() ?? []) {
        if (old.kind === track.kind && old !== track) this.stream.removeTrack(old);
      }
      this.stream?.addTrack(track);
      this.emit("track", track);
    });
    const channel = pc.createDataChannel("callbox", { negotiated: true, id: 0 });
    this.#channel = channel;
    channel.onopen = mine(() => {
      this.announce();
      if (this.#mine !== "connecting") this.#tell({ type: "path", path: this.#mine });
      this.emit("state", this.state);
    });
    channel.onmessage = mine(({ data }) => this.#hear(data));
  }

  #shut() {
    clearTimeout(this.#mend);
    this.#mend = null;
    this.#channel?.close();
    this.pc?.close();
    for (const track of this.stream?.getTracks() ?? []) this.stream.removeTrack(track);
    this.#channel = this.pc = null;
    this.#makingOffer = this.#ignoringOffer = this.#negotiationDue = this.#relayLost = false;
    this.#mine = "connecting";
    this.#theirs = undefined;
    this.#setPath();
  }

  async #negotiate() {
    const { pc } = this;
    if (!pc || this.#closed) return;
    if (!this.present || !this.#host.online) {
      this.#negotiationDue = true;
      return;
    }
    this.#negotiationDue = false;
    try {
      this.#makingOffer = true;
      await pc.setLocalDescription();
      if (this.pc === pc) this.#say({ description: pc.localDescription });
    } catch (error) {
      this.#host.log("offer", error);
    } finally {
      if (this.pc === pc) this.#makingOffer = false;
    }
  }

  async #handle(body) {
    if (body.greet) return this.#greeted(body);
    if (body.description) return this.#described(body.description, body.link);
    if ("candidate" in body && this.pc && body.link === this.#link) {
      try {
        // Null says that there are no more; leaving it out is understood everywhere.
        if (body.candidate) await this.pc.addIceCandidate(body.candidate);
      } catch (error) {
        if (!this.#ignoringOffer) this.#host.log("candidate", error);
      }
    }
  }

  #greeted({ link, reply, restart }) {
    if (this.#link && link === this.#link) {
      // The same two connections as before: the media may never have stopped.
      if (!reply) this.#greetBack();
      const broken = this.#relayLost || restart;
      this.#relayLost = false;
      this.catchUp();
      if (broken && this.impolite) this.#restart();
      return;
    }
    if (this.#link && !link && !reply) {
      // Whoever comes back under a new id does not know yet whom it greets: it may hold the other end of this connection.
      this.#say(this.greeting());
    } else if (!this.impolite) {
      if (!reply) this.#greetBack();
    } else if (this.pc && !this.pc.remoteDescription) {
      // An offer of ours that has no answer yet is said again rather than thrown away: greetings may cross.
      this.catchUp();
    } else {
      this.start();
    }
  }

  async #described(description, link) {
    if (typeof description.sdp !== "string" || typeof description.type !== "string") return;
    if (!this.pc || link !== this.#link) {
      if (description.type !== "offer") return;
      // Both began at once: the impolite one's connection stays.
      if (this.pc && this.impolite && !this.pc.remoteDescription && this.#link) return;
      this.#open(link);
    }
    const { pc } = this;
    if (description.type === "answer" && pc.signalingState !== "have-local-offer") return; // to an offer said twice
    const collision = description.type === "offer" && (this.#makingOffer || pc.signalingState !== "stable");
    this.#ignoringOffer = this.impolite && collision;
    if (this.#ignoringOffer) return;
    await pc.setRemoteDescription(description); // rolls an own offer back where there is one
    if (description.type !== "offer") return;
    await this.#adopt(pc);
    await pc.setLocalDescription();
    if (this.pc === pc) this.#say({ description: pc.localDescription });
  }

  /** Sends in the media sections that an offer has opened, so that there is one of each kind, both ways. */
  async #adopt(pc) {
    const transceivers = pc.getTransceivers();
    for (const kind of this.#host.kinds) {
      const ofKind = transceivers.filter((t) => t.receiver?.track?.kind === kind && t.currentDirection !== "stopped");
      if (ofKind.some((t) => t.direction === "sendrecv" || t.direction === "sendonly")) continue;
      if (ofKind.length === 0) continue;
      ofKind[0].direction = "sendrecv";
      await this.#send(ofKind[0].sender, this.#host.tracks[kind] ?? null);
    }
  }

  #stateChanged() {
    const { connectionState } = this.pc;
    if (connectionState === "connected") {
      clearTimeout(this.#mend);
      this.#mend = null;
      this.#relayLost = false;
      this.measure();
    } else if (MEND[connectionState]) {
      this.#watch();
    }
    this.emit("state", this.state);
  }

  /** Restarts ICE when the connection does not mend by itself, and again until it has. */
  #watch(again = false) {
    clearTimeout(this.#mend);
    const waits = again ? MEND.again : MEND[this.pc?.connectionState];
    if (!waits) return;
    const broken = () => this.pc && this.pc.connectionState !== "connected";
    this.#mend = setTimeout(async () => {
      if (!broken()) return;
      await this.#restart();
      if (broken()) this.#watch(true);
    }, waits[this.impolite ? 0 : 1]);
  }

  async #restart() {
    const { pc } = this;
    await this.#host.freshServers();
    if (this.pc !== pc || !pc || pc.signalingState === "closed") return;
    this.configure();
    const unanswered = pc.signalingState === "have-local-offer";
    pc.restartIce();
    if (unanswered) await this.#negotiate(); // the browser asks for it only when it is stable
  }

  #say(body) {
    if (this.present && !this.#closed) this.#host.send(this.id, { ...body, link: this.#link });
  }

  #greetBack() {
    this.#say({ ...this.greeting(), reply: true });
  }

  #tell(message) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(JSON.stringify(message));
    return true;
  }

  #hear(data) {
    if (typeof data !== "string" || data.length > FRAME_LENGTH) return;
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message?.type === "chat" && typeof message.text === "string") {
      this.emit("chat", { text: message.text.slice(0, CHAT_LENGTH) });
    } else if (message?.type === "path" && PATHS.has(message.path)) {
      this.#theirs = message.path;
      this.#setPath();
    } else if (message?.type === "media" && message.media && typeof message.media === "object") {
      this.media = message.media;
      this.emit("media", this.media);
    }
  }

  #setPath() {
    const path = combinePaths(this.#mine, this.#theirs);
    if (path === this.path) return;
    this.path = path;
    this.emit("path", path);
  }
}
