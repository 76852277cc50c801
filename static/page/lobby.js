import { showAvatar } from "./avatar.js";

const $ = (id) => document.getElementById(id);
const REMEMBERED = "callbox.name"; // in this browser only

/** The room before the room: how one looks, which devices, what name. */
export class Lobby {
  #media;

  /**
   * @param {import("./media.js").LocalMedia} media
   * @param {(choice: {name: string, relayOnly: boolean}) => void} join
   * @param {boolean} named the page comes with the name that was typed for this call
   */
  constructor(media, join, named) {
    this.#media = media;
    const name = $("display-name");
    // Not over what has been typed while the scripts came slowly.
    if (!named && name.value === name.defaultValue && document.activeElement !== name) name.value = recall() || name.value;
    name.addEventListener("input", () => this.#show());
    $("lobby-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = this.name;
      if (!chosen) return;
      remember(chosen);
      this.#busy(true);
      join({ name: chosen, relayOnly: $("relay-only").checked });
    });
    for (const [id, kind] of [["camera-select", "video"], ["microphone-select", "audio"]]) {
      $(id).addEventListener("change", () => media.choose(kind, $(id).value));
    }
    $("lobby-mic").addEventListener("click", () => media.setMicrophone(!media.state.audio));
    $("lobby-camera").addEventListener("click", () => media.setCamera(!media.camera));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.#devices());
    media.on("change", () => {
      this.#show();
      this.#devices();
    });
    media.on("note", (text) => this.#note(text));
    this.#show();
  }

  /** The display name as it stands, "" if there is none. */
  get name() {
    return $("display-name").value.trim();
  }

  /** Joining did not work. @param {string} text */
  failed(text) {
    this.#busy(false);
    this.#note(text, true);
  }

  #busy(busy) {
    $("join").disabled = busy;
  }

  #note(text, bad = false) {
    const note = $("device-note");
    note.textContent = text;
    note.hidden = !text;
    note.classList.toggle("error", bad);
  }

  #show() {
    const { camera, state } = this.#media;
    const preview = $("preview");
    if (preview.srcObject?.getTracks()[0] !== (camera ?? undefined)) preview.srcObject = camera ? new MediaStream([camera]) : null;
    preview.hidden = !camera;
    $("preview-avatar").hidden = Boolean(camera);
    showAvatar($("preview-avatar"), $("display-name").value);
    $("lobby-mic").setAttribute("aria-pressed", String(state.audio));
    $("lobby-camera").setAttribute("aria-pressed", String(Boolean(camera)));
  }

  async #devices() {
    const devices = await this.#media.devices();
    for (const [id, kind, track, none] of [
      ["camera-select", "video", this.#media.camera, "No camera"],
      ["microphone-select", "audio", this.#media.audio, "No microphone"],
    ]) {
      const select = $(id);
      const options = devices[kind].map((device, i) => new Option(device.label || `${kind === "video" ? "Camera" : "Microphone"} ${i + 1}`, device.deviceId));
      select.replaceChildren(...(options.length > 0 ? options : [new Option(none, "")]));
      select.disabled = options.length === 0;
      const current = track?.getSettings?.().deviceId ?? this.#media.chosen[kind];
      if (devices[kind].some((device) => device.deviceId === current)) select.value = current;
    }
  }
}

function recall() {
  try {
    return localStorage.getItem(REMEMBERED) ?? "";
  } catch {
    return ""; // storage is switched off
  }
}

function remember(name) {
  try {
    localStorage.setItem(REMEMBERED, name);
  } catch {
    // It is a convenience only.
  }
}
