"use strict"
/** The provider, brought up the way Medusa does it: the package's default export, its loaders, then the class. */
const { default: provider } = require("../../provider")
const { Store } = require("../../src/store")

/** A logger that keeps what it is told. */
function listener() {
  const lines = []
  const keep = (text) => lines.push(text)
  return { lines, info: keep, warn: keep, error: keep, said: (part) => lines.some((line) => line.includes(part)) }
}

/**
 * `MCACHE_TEST_NEAR=1` runs what uses the provider with a near cache in front of each read by key, which is for tests
 * only: the module says where that is right.
 */
const NEAR = process.env.MCACHE_TEST_NEAR ? { bytes: 1 << 20 } : undefined

/** How many reads were answered near, in all stores of this process so far. */
const nearHits = () => stores.reduce((sum, store) => sum + store.stats().nearHits, 0)
const stores = []

/** A value that the server gave is read once more: the first read has put it away, so the second is near. */
function withNear(store) {
  stores.push(store)
  const get = store.get.bind(store)
  store.get = async (key) => {
    const value = await get(key, { near: true })
    return value === null ? null : get(key, { near: true })
  }
  return store
}

/** Longer than a busy machine needs: what is about deadlines gives its own. */
const PATIENT = { commandTimeout: 30_000 }

async function startProvider(t, given, logger = listener()) {
  const options = { ...PATIENT, ...given }
  const cradle = {}
  const container = {
    register: (entries) => {
      for (const [name, resolver] of Object.entries(entries)) cradle[name] = resolver.resolve()
    },
  }
  if (NEAR && options.near === undefined && !options.cluster && !options.redisOptions?.sentinels && options.settle !== false) {
    cradle.mcacheStore = withNear(await new Store({ options: { ...options, near: NEAR }, logger }).start())
  } else for (const load of provider.loaders) await load({ container, logger, options }, { options })
  const service = new provider.services[0](cradle, { ttl: 3600 })
  t.after(() => service.store.close())
  return Object.assign(service, { logger })
}

/** Asks for leases of minutes, as if its loads took long: they begin with a second, which a slow machine outlasts. */
function withLongLeases({ store }) {
  store.leases.longestMs = 600_000
  store.leases.took(600_000)
}

module.exports = { startProvider, listener, nearHits, withLongLeases, PATIENT }
