"use strict"
/** The provider, brought up the way Medusa does it: the package's default export, its loaders, then the class. */
const { default: provider } = require("../../provider")

/** A logger that keeps what it is told. */
function listener() {
  const lines = []
  const keep = (text) => lines.push(text)
  return { lines, info: keep, warn: keep, error: keep, said: (part) => lines.some((line) => line.includes(part)) }
}

async function startProvider(t, options, logger = listener()) {
  const cradle = {}
  const container = {
    register: (entries) => {
      for (const [name, resolver] of Object.entries(entries)) cradle[name] = resolver.resolve()
    },
  }
  for (const load of provider.loaders) await load({ container, logger, options }, { options })
  const service = new provider.services[0](cradle, { ttl: 3600 })
  t.after(() => service.store.close())
  return Object.assign(service, { logger })
}

module.exports = { startProvider, listener }
