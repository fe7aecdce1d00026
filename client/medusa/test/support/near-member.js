"use strict"
/**
 * One process with a near cache: reads and clears when told. What it misses it loads from the parent, which keeps the
 * rows.
 */
const { Store } = require("../../src/store")

// A test that was cut off leaves nothing behind that its runner would wait for.
process.on("disconnect", () => process.exit())

const loads = new Map()
let store
let lastLoad = 0

function load(row) {
  const id = (lastLoad += 1)
  process.send({ load: id, row })
  return new Promise((resolve) => loads.set(id, resolve))
}

async function read(row) {
  const key = `row${row}`
  const found = await store.get(key, { near: true })
  if (found) return found.version
  const version = await load(row)
  await store.set({ key, data: { version }, tags: [`Row:${row}`, `Group:${row % 3}`] })
  return version
}

/** By its own tag, by one that it shares, or by key. */
function clear(row, how) {
  if (how === "key") return store.clearKey(`row${row}`)
  return store.clearTags([how === "group" ? `Group:${row % 3}` : `Row:${row}`], how === "auto")
}

process.on("message", async ({ id, name, options, row, how, loaded, version }) => {
  if (loaded !== undefined) {
    loads.get(loaded)(version)
    loads.delete(loaded)
    return
  }
  let value
  if (name === "start") store = await new Store({ options, logger: {} }).start()
  else if (name === "read") value = await read(row)
  else if (name === "clear") value = await clear(row, how)
  else if (name === "stats") value = { ...store.stats(), leaseRuns: store.near.serves() }
  process.send({ id, value })
})
