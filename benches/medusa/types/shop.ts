// What a shop writes, compiled against the package's types and Medusa's: `medusa.sh types`.
import { defineConfig } from "@medusajs/framework/utils"
import type { MedusaRequest, MedusaResponse } from "@medusajs/framework/http"
import type { ICachingModuleService, ICachingProviderService } from "@medusajs/framework/types"
import module, { McacheCachingModule, type McacheExplanation, type McacheExtensions, type McacheModuleOptions } from "medusa-mcache"
import provider, { McacheCachingProvider, type McacheOptions, type McacheStats } from "medusa-mcache/provider"

const options: Required<Omit<McacheOptions, "cluster" | "clusterOptions">> = {
  redisUrl: "redis://127.0.0.1:6380/0", redisOptions: { sentinels: [{ host: "127.0.0.1", port: 26379 }], name: "shop" },
  ttl: 3600, prefix: "mc:", compressionThreshold: 2048, commandTimeout: 500, connectTimeout: 10_000, leaseMs: 10_000, waitMs: 2_000,
  waiters: 4, earlyMs: 0, settle: true, near: { bytes: 64 << 20 },
}
const extensions: Required<McacheExtensions> = { queries: true, modules: true, tags: true, precise: true, writes: true, prices: true, reuse: true }
const ofModule: McacheModuleOptions = { ...options, cluster: [{ host: "127.0.0.1", port: 7000 }], clusterOptions: {}, extensions }

// @ts-expect-error there is no such extension
export const wrongExtension: McacheModuleOptions = { extensions: { everything: true } }
// @ts-expect-error seconds are a number
export const wrongTtl: McacheOptions = { ttl: "1h" }

export default defineConfig({
  featureFlags: { caching: true },
  modules: [{ resolve: "medusa-mcache", options: ofModule as Record<string, unknown> }],
})

// As Medusa's own code uses the two.
export const asModule = (service: McacheCachingModule): Omit<ICachingModuleService, "__joinerConfig"> => service
export const asProvider = (service: McacheCachingProvider): ICachingProviderService => service
export const packages = [module.service, module.loaders, module.linkable, provider.module, provider.services, provider.loaders]

// The route of the package's README.
export const GET = async (req: MedusaRequest, res: MedusaResponse) => {
  const caching = req.scope.resolve<McacheCachingModule>("caching")
  const stats: McacheStats = caching.stats()
  const queries: McacheExplanation[] = caching.explain("product")
  res.json({ stats, queries, owed: caching.unacknowledged() })
}
