import { Emitter } from "../callbox/emitter.js";

const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const VIDEO = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

/**
 * The own microphone, camera and screen: what is chosen, what is on, and the tracks to send.
 *
 * Events: "change", "note" (a sentence on what does not work and what to do, or "").
 */
export class LocalMedia extends Emitter {
  /** @type {MediaStreamTrack | null} */
  audio = null;
  /** @type {MediaStreamTrack | null} */
  camera = null;
  /** @type {MediaStreamTrack | null} */
  display = null;
  /** @type {{audio: string, video: string}} chosen device ids, "" for the browser's choice */
  chosen = { audio: "", video: "" };

  #closed = false;
  #step = Promise.resolve(); // devices are opened one after the other

  /** What to send: the screen goes before the camera. */
  get tracks() {
    return { audio: this.audio, video: this.display ?? this.camera };
  }

  /** What the others are told. */
  get state() {
    return { audio: Boolean(this.audio?.enabled), video: Boolean(this.camera || this.display), screen: Boolean(this.display) };
  }

  /** Opens both, or what there is of them. */
  open() {
    return this.#then(async () => {
      if (!navigator.mediaDevices?.getUserMedia) {
        this.emit("note", "This browser gives no camera or microphone to pages without https. You can join, see and hear the others, and chat.");
        return;
      }
      let stream = null;
      let fault = null;
      try {
        stream = await this.#get({ audio: true, video: true });
      } catch (error) {
        fault = error;
        for (const kind of ["audio", "video"]) {
          try {
            const one = await this.#get({ [kind]: true });
            stream = stream ?? new MediaStream();
            for (const track of one.getTracks()) stream.addTrack(track);
          } catch (error) {
            fault = error;
          }
        }
      }
      this.#adopt("audio", stream?.getAudioTracks()[0] ?? null);
      this.#adopt("video", stream?.getVideoTracks()[0] ?? null);
      this.emit("note", missing(this.audio, this.camera, fault));
    });
  }

  /** @param {boolean} on */
  setMicrophone(on) {
    return this.#then(async () => {
      if (on && !this.audio) await this.#reopen("audio");
      if (this.audio) this.audio.enabled = on;
    });
  }

  /** Turning the camera off lets go of it, so that its light goes out too. @param {boolean} on */
  setCamera(on) {
    return this.#then(async () => {
      if (on) await this.#reopen("video");
      else this.#adopt("video", null);
    });
  }

  /** @param {"audio" | "video"} kind @param {string} deviceId */
  choose(kind, deviceId) {
    return this.#then(async () => {
      this.chosen[kind] = deviceId;
      const on = kind === "audio" ? (this.audio?.enabled ?? true) : true;
      await this.#reopen(kind);
      if (kind === "audio" && this.audio) this.audio.enabled = on;
    });
  }

  /** Shares the screen, or ends it. @param {boolean} on */
  setScreen(on) {
    return this.#then(async () => {
      if (!on) return this.#adoptDisplay(null);
      if (!navigator.mediaDevices?.getDisplayMedia) {
        this.emit("note", "This browser cannot share its screen.");
        return;
      }
      try {
        const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15 } } });
        this.#adoptDisplay(stream.getVideoTracks()[0]);
      } catch (error) {
        // Changing one's mind in the browser's dialog is no fault.
        if (error.name !== "NotAllowedError") this.emit("note", `The screen could not be shared: ${error.message}`);
      }
    });
  }

  /** The devices there are. @returns {Promise<{audio: MediaDeviceInfo[], video: MediaDeviceInfo[]}>} */
  async devices() {
    const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
    const of = (kind) => all.filter((device) => device.kind === kind && device.deviceId);
    return { audio: of("audioinput"), video: of("videoinput") };
  }

  /** Lets go of everything. */
  close() {
    this.#closed = true; // a device may still be opening: the browser asks, and people take their time
    for (const track of [this.audio, this.camera, this.display]) track?.stop();
    this.audio = this.camera = this.display = null;
  }

  #get(kinds) {
    const constraints = {};
    const exact = (id) => (id ? { deviceId: { exact: id } } : {});
    if (kinds.audio) constraints.audio = { ...AUDIO, ...exact(this.chosen.audio) };
    if (kinds.video) constraints.video = { ...VIDEO, ...exact(this.chosen.video) };
    return navigator.mediaDevices.getUserMedia(constraints);
  }

  async #reopen(kind) {
    if (!navigator.mediaDevices?.getUserMedia) return;
    // Some systems open a camera once only: the old one goes first.
    this.#adopt(kind, null);
    try {
      const stream = await this.#get({ [kind]: true });
      this.#adopt(kind, stream.getTracks()[0]);
      this.emit("note", "");
    } catch (error) {
      this.emit("note", reason(kind, error));
    }
  }

  #adopt(kind, track) {
    const key = kind === "audio" ? "audio" : "camera";
    if (this[key] !== track) this[key]?.stop();
    if (this.#closed) track?.stop();
    this[key] = this.#closed ? null : track;
    if (!this[key]) return;
    track.onended = () => {
      if (this[key] !== track) return;
      this[key] = null;
      this.emit("note", `The ${key === "audio" ? "microphone" : "camera"} is gone. Choose another or plug it in again.`);
      this.emit("change", this);
    };
  }

  #adoptDisplay(track) {
    if (this.display !== track) this.display?.stop();
    if (this.#closed) track?.stop();
    this.display = this.#closed ? null : track;
    if (!this.display) return;
    track.contentHint = "detail";
    // The browser has a button of its own to stop sharing.
    track.onended = () => {
      if (this.display !== track) return;
      this.display = null;
      this.emit("change", this);
    };
  }

  #then(step) {
    this.#step = this.#step.then(step).catch((error) => this.emit("note", error.message)).then(() => this.emit("change", this));
    return this.#step;
  }
}

function missing(audio, camera, fault) {
  if (audio && camera) return "";
  if (audio) return `${reason("video", fault)} You will be heard and not seen.`;
  if (camera) return `${reason("audio", fault)} You will be seen and not heard.`;
  if (fault?.name === "NotAllowedError") {
    return "The browser does not let this page use camera and microphone. Allow it in the address bar, or join to see, hear and chat only.";
  }
  return "No camera or microphone was found. You can join, see and hear the others, and chat.";
}

function reason(kind, error) {
  const what = kind === "audio" ? "microphone" : "camera";
  switch (error?.name) {
    case "NotAllowedError":
      return `The browser does not let this page use the ${what}; allow it in the address bar.`;
    case "NotReadableError":
      return `Another program is using the ${what}.`;
    default:
      return `No ${what} was found.`;
  }
}
