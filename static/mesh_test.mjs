import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh } from "./callbox/mesh.js";
import { FakeNetwork, settle, stopClock, tick } from "./testing.mjs";

/** A mesh whose client knows the members it is given; heard is what its peers took. */
function mesh(t) {
  stopClock(t);
  const members = new Map();
  const network = new FakeNetwork();
  const log = [];
  const host = {
    instance: "m", id: "me", online: true, ready: Promise.resolve(), configuration: {}, kinds: [], tracks: {}, media: {}, videoBitrate: 1,
    RTCPeerConnection: network.RTCPeerConnection, MediaStream: undefined, member: (id) => members.get(id), send() {},
    freshServers: async () => {}, log: (what, error) => log.push(`${what}: ${error.message}`), emit() {},
  };
  const made = new Mesh(host);
  t.after(() => made.close());
  const meet = (peer) => {
    members.set(peer, { peer, user: peer, name: peer });
    made.meet(members.get(peer), false);
  };
  return { mesh: made, host, network, log, meet, members };
}

const offer = (ufrag) => ({ instance: "a", link: "l", description: { type: "offer", sdp: JSON.stringify({ ufrag, kinds: [] }) } });
const candidate = (ufrag) => ({ instance: "a", link: "l", candidate: { candidate: ufrag } });

test("signals that come before their sender's presence are handled after it", async (t) => {
  const { mesh: m, meet } = mesh(t);
  m.hear("x", offer("u"));
  await tick(5000);
  meet("x");
  await settle();
  assert.equal(m.peers.get("x").pc.remoteUfrag, "u");
});

test("signals of one who never appears are let go, and take nobody's place for ever", async (t) => {
  const { mesh: m, meet } = mesh(t);
  m.hear("never", offer("old"));
  await tick(9000);
  m.hear("never", candidate("old"));
  await tick(1001);
  meet("never");
  await settle();
  assert.equal(m.peers.size, 0, "what it said ten seconds ago is forgotten");

  for (let i = 0; i < 40; i++) m.hear(`flood ${i}`, offer(`u${i}`));
  for (const i of [7, 8, 39]) meet(`flood ${i}`);
  await settle();
  assert.deepEqual([...m.peers.keys()], ["flood 8", "flood 39"], "of too many, the latest 32");
});

test("of too many early signals of one peer, the description is kept", async (t) => {
  const { mesh: m, meet } = mesh(t);
  for (let i = 0; i < 70; i++) m.hear("x", candidate("u"));
  m.hear("x", offer("u"));
  for (let i = 0; i < 70; i++) m.hear("x", candidate("u"));
  meet("x");
  await settle();
  assert.equal(m.peers.get("x").pc.remoteUfrag, "u");
});
