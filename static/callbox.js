/**
 * callbox.js: a client of callbox.v1 and the WebRTC calls built on it, without a DOM.
 *
 *     import { Client } from "https://calls.example.org/static/callbox.js";
 *
 *     const client = new Client({ token });            // a room token; none on callbox's own pages
 *     client.on("peer", (peer) => {
 *       const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true, srcObject: peer.stream });
 *       document.body.append(video);
 *       peer.on("gone", () => video.remove());
 *     });
 *     addEventListener("pagehide", () => client.close());      // gone at once, not held for 30 seconds
 *     client.publish(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
 *     await client.join("standup");
 *
 * client.js holds rooms and presence, ringing.js calls by name; connection.js the WebSocket session; mesh.js who is met,
 * given up, or back under another id; peer.js one RTCPeerConnection and its negotiation; ice.js the STUN and TURN servers;
 * path.js which way the media takes. docs/protocol.md specifies what goes over the wire.
 *
 * @module callbox
 */

export { Client } from "./callbox/client.js";
export { CallboxError } from "./callbox/connection.js";
export { selectedPath } from "./callbox/path.js";
