import { Client } from "../callbox.js";
import { showConnection } from "./banner.js";
import { Chat } from "./chat.js";
import { Lobby } from "./lobby.js";
import { LocalMedia } from "./media.js";
import { labelOf } from "./people.js";
import { RingNotice } from "./ring.js";
import { Tiles } from "./tiles.js";

const $ = (id) => document.getElementById(id);
const config = JSON.parse($("config").textContent);
const media = new LocalMedia();
const lobby = new Lobby(media, join, config.guest);
const client = new Client({ name: lobby.name, ice: config.ice ?? undefined });
const chat = new Chat((text) => client.chat(text), () => say(""));
const FINAL = {
  unauthorized: config.guest
    ? "Your invitation has ended, or was withdrawn."
    : "You are not logged in any more: the login has expired, or was ended by the administrator.",
  replaced: "It goes on in another window.",
};
let tiles = null; // once in the call
let name = "";
let toast = null;

function say(text) {
  clearTimeout(toast);
  $("status").textContent = text;
  $("status").classList.toggle("shown", Boolean(text));
  toast = setTimeout(() => $("status").classList.remove("shown"), 5000);
}

/** @param {{name: string, relayOnly: boolean}} choice */
async function join(choice) {
  name = choice.name;
  client.setIceTransportPolicy(choice.relayOnly ? "relay" : "all");
  if (name !== client.name) client.rename(name);
  client.publish(media.tracks);
  client.announce(media.state);
  let peers;
  try {
    ({ peers } = await client.join(config.room));
  } catch (error) {
    return lobby.failed(error.code === "room-full" ? "This call is full." : `You could not join: ${error.message}`);
  }
  if (peers.length > config.maxPeers) {
    client.leave(config.room).catch(() => {});
    return lobby.failed(`This call is full: ${config.maxPeers} people are in it already.`);
  }
  $("lobby").hidden = true;
  $("call").hidden = false;
  tiles = new Tiles($("tiles"), $("tile-template"));
  for (const peer of client.peers.values()) tiles.add(peer);
  refresh();
  keepAwake();
  $("mic").focus();
}

/** Shows and sends what the own devices do now. */
function refresh() {
  for (const [id, on] of [["mic", media.state.audio], ["camera", Boolean(media.camera)], ["screen", media.state.screen]]) {
    $(id).setAttribute("aria-pressed", String(on));
  }
  if (!tiles) return;
  tiles.showSelf(name, media);
  if ($("people-count").textContent !== String(tiles.count)) showInvitation(tiles.count === 1);
  $("people-count").textContent = String(tiles.count);
}

/** The link and the names: shown by itself to one who is alone, else when asked for. */
function showInvitation(shown) {
  $("waiting").hidden = !shown;
  $("waiting-title").textContent = tiles.count === 1 ? "Nobody else is here" : "Bring someone in";
  $("invite").setAttribute("aria-expanded", String(shown));
}
$("invite").addEventListener("click", () => {
  showInvitation($("waiting").hidden);
  if (!$("waiting").hidden) $("invite-name")?.focus();
});
$("waiting").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  showInvitation(false);
  $("invite").focus();
});

client.on("peer", (peer) => {
  tiles?.add(peer);
  say(`${labelOf(peer)} has joined`);
  refresh();
});
client.on("peer-gone", (peer) => {
  tiles?.remove(peer);
  if (client.state !== "closed") say(`${labelOf(peer)} has left`);
  refresh();
});
client.on("chat", ({ peer, text }) => {
  chat.add(labelOf(peer), text);
  if ($("chat").hidden) say(`${labelOf(peer)}: ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`);
});
client.on("room-lost", ({ error }) => leave("You have dropped out of the call", `The server did not let you back in: ${error.message}`));
client.on("closed", (error) => {
  if (error.code === "closed" || !tiles) return;
  if (error.code === "unauthorized") $("rejoin").textContent = config.guest ? "Log in" : "Log in again";
  leave("The call has ended for you", FINAL[error.code] ?? `The connection to the server ended: ${error.message}.`);
});
client.on("log", ({ what, error }) => console.debug("callbox", what, error));

media.on("change", () => {
  client.publish(media.tracks);
  client.announce(media.state);
  refresh();
});
media.on("note", (text) => {
  if (tiles) say(text);
});

const toggle = (id) => $(id).getAttribute("aria-pressed") !== "true";
$("mic").addEventListener("click", () => media.setMicrophone(toggle("mic")));
$("camera").addEventListener("click", () => media.setCamera(toggle("camera")));
$("screen").addEventListener("click", () => media.setScreen(toggle("screen")));
$("screen").hidden = !navigator.mediaDevices?.getDisplayMedia;
$("leave").addEventListener("click", () => leave("You have left the call", "You can come back whenever you like, with the same link."));
$("rejoin").addEventListener("click", () => location.reload());

$("copy-link").addEventListener("click", async () => {
  await copy(config.link, "The link to this call:");
});

$("guest-link")?.addEventListener("click", async () => {
  const button = $("guest-link");
  button.disabled = true;
  try {
    const response = await fetch("/api/v1/invites", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ room: config.room }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    await copy(answer.url, "The guest link:");
  } catch (error) {
    say(`There is no guest link: ${error.message}`);
  } finally {
    button.disabled = false;
  }
});

/** @param {string} link @param {string} title */
async function copy(link, title) {
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied");
  } catch {
    // No clipboard without https, or not allowed: the address can be copied by hand.
    window.prompt(title, link);
  }
}

$("invite-form")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const person = $("invite-name").value.trim();
  const status = $("invite-status");
  if (!person) return;
  status.textContent = `Calling ${person}…`;
  try {
    const { answer } = await client.call(person, config.room);
    const { accepted, reason } = await answer;
    status.textContent = accepted ? `${person} is coming.` : reason === "timeout" ? `${person} did not answer.` : `${person} cannot talk now.`;
  } catch (error) {
    status.textContent = error.code === "unavailable" ? `${person} is not here right now.` : `That did not work: ${error.message}`;
  }
});

/** Ends the call on this page. */
function leave(title, text) {
  client.close();
  media.close();
  for (const id of ["lobby", "call", "ring", "banner"]) $(id).hidden = true;
  document.body.classList.replace("calling", "doorway");
  document.body.classList.remove("with-chat");
  say("");
  $("left-title").textContent = title;
  $("left-text").textContent = text;
  $("left").hidden = false;
  $("left-title").focus();
}

/** A phone that goes dark would end the picture. */
async function keepAwake() {
  try {
    await navigator.wakeLock?.request("screen");
  } catch {
    // Not while in the background, or not on this battery: it is asked for again when the page is seen again.
  }
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && tiles) keepAwake();
});

new RingNotice(client, {
  consequence: () => (tiles ? "Answering leaves this call." : ""),
  answered: (room) => (location.href = `/call/${encodeURIComponent(room)}`),
  failed: say,
});
showConnection(client, () => ([...client.peers.values()].some(({ path }) => path === "direct") ? "Those you are connected with directly stay with you." : ""));
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
window.callbox = client;
client.connect().catch(() => {}); // the banner shows it
media.open();
