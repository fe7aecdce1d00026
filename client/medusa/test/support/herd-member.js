"use strict"
/** One process of a herd: reads a key when told, loads it when it has to, and says what happened. */
const { Store } = require("../../src/store")

process.once("message", async ({ options, key, loadMs, readers }) => {
  const store = await new Store({ options, logger: {} }).start()
  process.send({ ready: true })
  process.once("message", async () => {
    let loads = 0
    const read = async () => {
      const found = await store.get(key)
      if (found) return
      loads += 1
      await new Promise((resolve) => setTimeout(resolve, loadMs))
      await store.set({ key, data: { loaded: process.pid }, tags: ["T:1"] })
    }
    await Promise.all(Array.from({ length: readers }, read))
    process.send({ loads, stats: store.stats() })
    store.close()
    process.disconnect()
  })
})
