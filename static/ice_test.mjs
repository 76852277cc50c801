import assert from "node:assert/strict";
import { test } from "node:test";
import { IceServers } from "./callbox/ice.js";
import { stopClock, tick } from "./testing.mjs";

function servers(t, ask) {
  stopClock(t);
  const counts = { asked: 0, changed: 0 };
  const ice = new IceServers(
    async () => ask(++counts.asked),
    () => counts.changed++,
  );
  t.after(() => ice.close());
  return { ice, counts };
}

test("those who need fresh servers at the same time ask once", async (t) => {
  const { ice, counts } = servers(t, () => ({ iceServers: [], ttlSeconds: 600 }));
  ice.set({ iceServers: [], ttlSeconds: 4 }); // as good as over
  await Promise.all([ice.ensureFresh(), ice.ensureFresh(), ice.ensureFresh()]);
  assert.deepEqual(counts, { asked: 1, changed: 2 });
  await ice.ensureFresh();
  assert.equal(counts.asked, 1, "they are fresh");
});

test("a server that is busy is asked again, one that refuses is not", async (t) => {
  for (const [code, asked] of [["busy", 2], ["rate-limited", 2], ["not-connected", 1]]) {
    await t.test(code, async (t) => {
      const { ice, counts } = servers(t, (count) => {
        if (count === 1) throw Object.assign(new Error(code), { code });
        return { iceServers: [], ttlSeconds: 600 };
      });
      await ice.renew();
      await tick(3000);
      assert.equal(counts.asked, asked);
    });
  }
});

test("servers without a time are never renewed, and timers take no more than they can hold", async (t) => {
  for (const ttlSeconds of [undefined, 0, -1, 2 ** 40]) {
    await t.test(`${ttlSeconds}`, async (t) => {
      const { ice, counts } = servers(t, () => ({}));
      ice.set({ iceServers: [], ttlSeconds });
      await tick(86_400_000);
      assert.equal(counts.asked, 0);
    });
  }
});
