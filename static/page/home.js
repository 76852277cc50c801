import { Client } from "../callbox.js";
import { showConnection } from "./banner.js";
import { RingNotice } from "./ring.js";

const $ = (id) => document.getElementById(id);
const client = new Client();
const status = $("person-status");
let outgoing = null;

const callPage = (room) => `/call/${encodeURIComponent(room)}`;

/** Ten letters in three groups, without look-alikes: easy to say and hard to guess (45 bits). */
function freshRoom() {
  const letters = "abcdefghjkmnpqrstuvwxyz";
  const random = crypto.getRandomValues(new Uint32Array(10));
  const name = [...random].map((n) => letters[n % letters.length]).join("");
  return `${name.slice(0, 3)}-${name.slice(3, 7)}-${name.slice(7)}`;
}

// Who submits the form before this script runs comes back with the room in the address.
const early = new URLSearchParams(location.search).get("room")?.trim();
if (early) location.replace(callPage(early));

// Whoever is typing already, while the scripts came slowly, knows which room it is to be.
if (!$("room").value && document.activeElement !== $("room")) $("room").value = freshRoom();
$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = $("room").value.trim();
  if (room) location.href = callPage(room);
});

$("person-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const person = $("person").value.trim();
  if (!person || outgoing) return;
  status.textContent = `Calling ${person}…`;
  try {
    outgoing = await client.call(person, freshRoom());
  } catch (error) {
    status.textContent = error.code === "unavailable" ? `${person} is not here right now.` : `That did not work: ${error.message}`;
    return;
  }
  $("person-cancel").hidden = false;
  const { accepted, reason } = await outgoing.answer;
  const { room } = outgoing;
  outgoing = null;
  $("person-cancel").hidden = true;
  if (accepted) {
    status.textContent = `${person} has answered.`;
    location.href = callPage(room);
    return;
  }
  status.textContent = {
    declined: `${person} cannot talk now.`,
    timeout: `${person} did not answer.`,
    cancelled: "",
  }[reason] ?? "The call was interrupted. Try again.";
});
$("person-cancel").addEventListener("click", () => outgoing?.cancel());

new RingNotice(client, {
  consequence: () => "",
  answered: (room) => (location.href = callPage(room)),
  failed: (text) => (status.textContent = text),
});
showConnection(client, () => "");
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
client.connect().catch(() => {}); // the banner shows it
window.callbox = client;
