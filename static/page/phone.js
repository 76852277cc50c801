// Tries every way to the server, one after the other, and tells it what came of each.
const config = JSON.parse(document.getElementById("config").textContent);
const here = location.pathname;
const patience = 12_000; // milliseconds for one way

/** The promise, or an error after so long. */
function within(milliseconds, promise, why) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(why())), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function show(step, state, text) {
  const place = document.querySelector(`[data-step="${step}"] .state`);
  place.dataset.state = state;
  place.textContent = text;
}

async function report(step, ok, detail, millis) {
  const body = JSON.stringify({ step, ok, detail: String(detail ?? "").slice(0, 200), millis: Math.round(millis) });
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const answer = await fetch(here, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      return answer.ok;
    } catch {
      // a mobile network loses a connection now and then
    }
  }
  return false;
}

let told = true;
let failed = 0;
async function attempt(step, way) {
  show(step, "trying", "trying…");
  const began = performance.now();
  let ok = true;
  let detail = "";
  try {
    detail = await way();
  } catch (error) {
    ok = false;
    failed++;
    detail = error.message;
  }
  show(step, ok ? "works" : "fails", ok ? "works" : "does not work");
  told = (await report(step, ok, detail, performance.now() - began)) && told;
}

function webSocket() {
  const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}${here}/ws`);
  const echo = new Promise((resolve, reject) => {
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => (event.data === "hello" ? resolve("") : reject(new Error("something else came back")));
    socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
  });
  return within(patience, echo, () => "no WebSocket could be opened").finally(() => socket.close());
}

/** What a connection's attempts to reach a server said, in short. */
function errorsOf(connection) {
  const seen = new Set();
  connection.addEventListener("icecandidateerror", (event) => seen.add(`${event.errorCode} ${event.errorText ?? ""}`.trim()));
  return () => [...seen].join(", ");
}

async function stun() {
  const connection = new RTCPeerConnection({ iceServers: [{ urls: config.stun }] });
  const errors = errorsOf(connection);
  connection.createDataChannel("probe");
  const found = new Promise((resolve, reject) => {
    connection.onicecandidate = ({ candidate }) => {
      if (candidate?.type === "srflx") resolve(`seen as ${candidate.address ?? "an address"}`);
    };
    // An address that is the phone's own gives no candidate of its own: then no error means that the server has answered.
    connection.onicegatheringstatechange = () => {
      if (connection.iceGatheringState !== "complete") return;
      if (errors()) reject(new Error(errors()));
      else resolve("");
    };
  });
  try {
    await connection.setLocalDescription();
    return await within(patience, found, () => errors() || "no answer");
  } finally {
    connection.close();
  }
}

/** Two connections of this page meet on the relay and nowhere else; a word goes there and back. */
async function relay(url) {
  const settings = {
    iceTransportPolicy: "relay",
    iceServers: [{ urls: url, username: config.username, credential: config.credential }],
  };
  const [a, b] = [new RTCPeerConnection(settings), new RTCPeerConnection(settings)];
  const errors = errorsOf(a);
  let relayed = false;
  for (const [from, to] of [[a, b], [b, a]]) {
    from.onicecandidate = ({ candidate }) => {
      if (!candidate) return;
      relayed = true;
      to.addIceCandidate(candidate).catch(() => {}); // one that cannot be used is none
    };
  }
  const channel = a.createDataChannel("probe");
  b.ondatachannel = ({ channel: other }) => {
    other.onmessage = (event) => other.send(event.data);
  };
  const echo = new Promise((resolve, reject) => {
    channel.onopen = () => channel.send("hello");
    channel.onmessage = () => resolve("");
    a.onicegatheringstatechange = () => {
      if (a.iceGatheringState === "complete" && !relayed) reject(new Error(errors() || "the server gave no relayed address"));
    };
  });
  echo.catch(() => {}); // it may end before anybody waits for it
  try {
    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription);
    return await within(patience, echo, () => errors() || (relayed ? "a relayed address was given, but nothing passes" : "no answer"));
  } finally {
    a.close();
    b.close();
  }
}

await attempt("HTTPS", async () => "");
await attempt("WebSocket", webSocket);
await attempt("STUN", stun);
await attempt("relay over UDP", () => relay(config.udp));
await attempt("relay over TCP", () => relay(config.tcp));
await attempt("relay over TLS", () => relay(config.tls));
document.getElementById("outcome").textContent =
  (told ? "Done. " : "Done, but not all of it could be told to the server. ") +
  (failed ? "The server's terminal says what to do." : "Every way is open.");
