"use strict"
/** The provider of Medusa's own caching module: what ICachingProviderService asks for, over the store. */
const { listed } = require("../names")

class McacheCachingProvider {
  static identifier = "cache-mcache"

  /** The second argument would be the caching module's options; ours came through the loader. */
  constructor({ mcacheStore }) {
    this.store = mcacheStore
  }

  /** By key a value or null; by tags the values of all entries that carry any of them. */
  async get({ key, tags }) {
    if (key) return await this.store.get(key)
    if (tags) return await this.store.getByTags(listed(tags))
    return null
  }

  async set({ key, data, ttl, tags, options }) {
    await this.store.set({ key, data, ttl, tags: listed(tags), autoInvalidate: options?.autoInvalidate })
  }

  /**
   * Settles when the clear is on its way, not when it is acknowledged: Medusa's module lets a second clear of the same
   * tags share the first one's promise for as long as that is open, although a write may have come between them. So it
   * must not be open any more once the command has left. What is not acknowledged is sent again in the background.
   */
  async clear({ key, tags: given, options }) {
    const tags = listed(given)
    if (key) this.store.clearKey(key)
    else if (!tags?.length || (options?.autoInvalidate === false && !tags.includes("*"))) return
    else this.store.clearTags(tags, options?.autoInvalidate === true)
    await this.store.sent()
  }

  /** Numbers since the start. */
  stats() {
    return this.store.stats()
  }

  /** The tags and keys whose clearing Redis has not acknowledged; they are sent again until it does. */
  unacknowledged() {
    return this.store.clears.unacknowledged()
  }
}

module.exports = { McacheCachingProvider }
