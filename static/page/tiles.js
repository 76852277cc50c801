import { showAvatar } from "./avatar.js";
import { isGuest, nameOf } from "./people.js";

const EXPLAIN = {
  connecting: "Looking for a way to each other",
  direct: "Media goes straight between your two devices",
  relay: "Media goes through the relay",
  "relay udp": "Media goes through the relay, over UDP",
  "relay tcp": "Media goes through the relay, over TCP",
  "relay tls": "Media goes through the relay, over TLS",
};
const LOUD = 0.02; // audio level from which someone counts as speaking, 0 to 1
const SHAPE = 4 / 3; // width by height that a tile would like to have

/** The people of a call as tiles that fill the stage. */
export class Tiles {
  #list;
  #template;
  #tiles = new Map(); // peer -> element
  #self;

  /** @param {HTMLElement} list @param {HTMLTemplateElement} template */
  constructor(list, template) {
    this.#list = list;
    this.#template = template;
    this.#self = this.#make();
    this.#self.classList.add("self");
    this.#self.dataset.state = "connected";
    this.#part(this.#self, "path").hidden = true;
    this.#part(this.#self, "video").muted = true;
    list.append(this.#self);
    new ResizeObserver(() => this.#arrange()).observe(list);
    setInterval(() => this.#listen(), 250);
  }

  get count() {
    return this.#tiles.size + 1;
  }

  /** Shows oneself. @param {string} name @param {import("./media.js").LocalMedia} media */
  showSelf(name, media) {
    const tile = this.#self;
    const { video } = media.tracks;
    const element = this.#part(tile, "video");
    if (element.srcObject?.getTracks()[0] !== (video ?? undefined)) element.srcObject = video ? new MediaStream([video]) : null;
    this.#name(tile, name, `${name} (you)`);
    this.#state(tile, media.state);
  }

  /** @param {import("../callbox/peer.js").Peer} peer */
  add(peer) {
    const tile = this.#make();
    this.#tiles.set(peer, tile);
    const video = this.#part(tile, "video");
    video.srcObject = peer.stream;
    // Sound may need a touch first where the page was opened by a link.
    const play = () => video.play().catch(() => document.addEventListener("pointerdown", play, { once: true }));
    const show = () => {
      tile.dataset.peer = peer.id;
      tile.dataset.state = peer.state;
      this.#name(tile, nameOf(peer), nameOf(peer));
      // Beside the name, where a long one cannot push it out of sight.
      this.#part(tile, "guest").hidden = !isGuest(peer);
    };
    const path = () => {
      const badge = this.#part(tile, "path");
      badge.dataset.path = badge.textContent = peer.path;
      badge.title = EXPLAIN[peer.path];
    };
    peer.on("changed", show);
    peer.on("state", show);
    peer.on("path", path);
    peer.on("media", (media) => this.#state(tile, media));
    peer.on("track", play);
    show();
    path();
    this.#state(tile, { audio: true });
    this.#list.insertBefore(tile, this.#self);
    this.#arrange();
  }

  /** @param {import("../callbox/peer.js").Peer} peer */
  remove(peer) {
    const tile = this.#tiles.get(peer);
    if (!tile) return;
    this.#part(tile, "video").srcObject = null;
    tile.remove();
    this.#tiles.delete(peer);
    this.#arrange();
  }

  #make() {
    return this.#template.content.firstElementChild.cloneNode(true);
  }

  #part(tile, what) {
    return tile.querySelector(what === "video" ? "video" : `.${what}`);
  }

  #name(tile, name, label) {
    this.#part(tile, "name").textContent = label;
    showAvatar(this.#part(tile, "avatar"), name);
  }

  #state(tile, media) {
    tile.classList.toggle("no-video", !media.video);
    tile.classList.toggle("screen", Boolean(media.screen));
    this.#part(tile, "tile-muted").hidden = media.audio !== false;
  }

  /** As many columns as make the tiles largest. */
  #arrange() {
    const list = this.#list;
    list.dataset.count = String(this.count);
    const { clientWidth: width, clientHeight: height } = list;
    let best = { columns: 1, area: 0 };
    for (let columns = 1; columns <= this.count; columns++) {
      const rows = Math.ceil(this.count / columns);
      const w = Math.min(width / columns, (height / rows) * SHAPE);
      if (w > best.area) best = { columns, area: w };
    }
    list.style.setProperty("--columns", String(best.columns));
    const last = this.count % best.columns;
    [...list.children].forEach((tile, i) => {
      const begins = last > 0 && i === this.count - last;
      tile.style.setProperty("--start", begins ? String(best.columns - last + 1) : "auto");
    });
  }

  #listen() {
    for (const [peer, tile] of this.#tiles) {
      const receiver = peer.pc?.getReceivers().find((r) => r.track?.kind === "audio");
      const level = receiver?.getSynchronizationSources?.()[0]?.audioLevel ?? 0;
      tile.classList.toggle("speaking", level > LOUD);
    }
  }
}
