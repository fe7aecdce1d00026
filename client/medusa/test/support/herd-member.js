"use strict"
/** One process of a herd: reads a key when told, loads it until told when it has to, and says what happened. */
const { Store } = require("../../src/store")
const { withLongLeases } = require("./provider")

// A test that was cut off leaves nothing behind that its runner would wait for.
process.on("disconnect", () => process.exit())

process.once("message", async ({ options, key, readers }) => {
  const store = await new Store({ options, logger: {} }).start()
  withLongLeases({ store })
  process.send({ ready: true })
  process.once("message", async () => {
    let loads = 0
    const read = async () => {
      const found = await store.get(key)
      if (found) return
      loads += 1
      process.send({ loads })
      await new Promise((resolve) => process.once("message", resolve))
      await store.set({ key, data: { loaded: process.pid }, tags: ["T:1"] })
    }
    await Promise.all(Array.from({ length: readers }, read))
    process.send({ isOver: true, loads, stats: store.stats() })
    store.close()
    process.disconnect()
  })
})
