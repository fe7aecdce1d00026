"use strict"
/** Connects when Medusa starts, reads the options of the module, and hands both to the service. */
const { Store } = require("../store")
const { OptionError } = require("../options")
const { loadedMedusa } = require("./medusa")
const { findQuery, tapRequests, tapQueries } = require("./taps")

/** What can be switched off, each by its name: `extensions: { prices: false }`. */
const EXTENSIONS = {
  // Queries of catalogue and configuration inside requests of the store are cached although Medusa does not ask for it.
  queries: true,
  // What modules read of each other inside requests of the store is cached call by call.
  modules: true,
  // Tags come from what a query read, not only from the rows it found.
  tags: true,
  // A result depends on the rows it shows where that is enough; off: on all rows of their types.
  precise: true,
  // Writes of modules clear by themselves, also those that send no event.
  writes: true,
  // Results with prices end when a price list begins or ends.
  prices: true,
  // Results that are hardly read again are not stored.
  reuse: true,
}
const OWN = ["providers", "extensions", "in_memory", "is_default", "id"]

function readExtensions(given = {}) {
  for (const [name, value] of Object.entries(given)) {
    if (!(name in EXTENSIONS)) throw new OptionError(`there is no extension "${name}"; there are ${Object.keys(EXTENSIONS).join(", ")}.`)
    if (typeof value !== "boolean") throw new OptionError(`extensions.${name} must be true or false.`)
  }
  return { ...EXTENSIONS, ...given }
}

/** The options of the module; a project that lists providers gives ours as one of them. */
function readModuleOptions(given = {}) {
  const listed = given.providers ?? []
  if (listed.length > 1) {
    throw new OptionError("as the caching module it has one provider, its own; use medusa-mcache/provider beside others.")
  }
  return { ...given, ...listed[0]?.options }
}

async function loadModule({ container, logger, options }) {
  const given = readModuleOptions(options)
  const extensions = readExtensions(given.extensions)
  if (given.near && !extensions.writes) {
    throw new OptionError("near needs the extension writes: without it, a write's answer does not wait until no near cache serves what it changed. Leave one of them out.")
  }
  const store = await new Store({ options: given, logger, known: OWN }).start()
  if (extensions.queries || extensions.tags || extensions.modules) {
    const query = findQuery()
    if (query?.Query && query.ModuleDataFetcher) {
      tapRequests()
      tapQueries(query)
    } else store.log.warn("@medusajs/query was not found: only what Medusa itself caches is cached, with tags from rows")
  }
  const handed = { mcacheStore: store, mcacheExtensions: extensions, mcacheMedusa: loadedMedusa }
  for (const [name, value] of Object.entries(handed)) container.register({ [name]: { resolve: () => value } })
}

module.exports = { loadModule, readExtensions, readModuleOptions, EXTENSIONS }
