import type { McacheOptions, McacheStats } from "./provider"

/** What the module does beyond Medusa's; each can be switched off. All are on by default. */
export interface McacheExtensions {
  /** Cache queries of catalogue and configuration inside requests of the store, also where Medusa does not ask for it. */
  queries?: boolean
  /** Cache what modules read of each other inside requests of the store: a cart's region, variants and prices. */
  modules?: boolean
  /** Tags from what a query read, not only from the rows it found. */
  tags?: boolean
  /** Depend on the rows shown where that is enough. Off: on all rows of their types. */
  precise?: boolean
  /** Notice writes where modules make them, also those that send no event. */
  writes?: boolean
  /** End results with prices when a price list begins or ends, and let carts share the prices that are the same for all of them. */
  prices?: boolean
  /** Do not store what is hardly read again. */
  reuse?: boolean
}

/** Options of the module in place of `@medusajs/caching`. */
export interface McacheModuleOptions extends McacheOptions {
  extensions?: McacheExtensions
  /** As with `@medusajs/caching`: one provider, whose options are taken. */
  providers?: { resolve?: string; id?: string; is_default?: boolean; options?: McacheOptions }[]
}

/** What became of one shape of query. */
export interface McacheExplanation {
  query: string
  cached: boolean | "by Medusa's choice"
  why: string
  runs: number
  hits: number
  fills: number
  refused: number
  services: string[]
  /** Of the last result that was stored. */
  tags: string[]
}

/** The caching module's service, in Medusa's container as `caching`. */
export declare class McacheCachingModule {
  get(input: { key?: string; tags?: string[]; providers?: unknown }): Promise<any>
  set(input: {
    key: string
    data: object
    ttl?: number
    tags?: string[]
    computeAutomaticTags?: boolean
    providers?: unknown
    options?: { autoInvalidate?: boolean }
  }): Promise<void>
  clear(input: { key?: string; tags?: string[]; options?: { autoInvalidate?: boolean }; providers?: unknown }): Promise<void>
  computeKey(input: object): Promise<string>
  computeTags(
    input: object,
    options?: { entities?: { type: string; id?: string }[]; operation?: string },
  ): Promise<string[]>
  /** What became of each shape of query; `part` picks those whose text contains it. */
  explain(part?: string): McacheExplanation[]
  stats(): McacheStats
  /** Tags and keys whose clearing Redis has not acknowledged yet. */
  unacknowledged(): string[]
}

declare const module: { service: typeof McacheCachingModule; loaders: unknown[]; linkable: object }
export default module
