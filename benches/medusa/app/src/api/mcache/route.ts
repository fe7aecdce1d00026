import type { MedusaRequest, MedusaResponse } from "@medusajs/framework/http"

// What the package says about itself: counters, and what became of each query.
export const GET = async (req: MedusaRequest, res: MedusaResponse) => {
  const caching: any = req.scope.resolve("caching", { allowUnregistered: true } as any)
  res.json({ stats: caching?.stats?.() ?? null, explain: caching?.explain?.(String(req.query.part ?? "")) ?? [] })
}
