import type { MedusaRequest, MedusaResponse } from "@medusajs/framework/http"
import { Modules } from "@medusajs/framework/utils"

// What the package says about itself: counters, and what became of each query.
export const GET = async (req: MedusaRequest, res: MedusaResponse) => {
  const caching: any = req.scope.resolve("caching", { allowUnregistered: true } as any)
  res.json({ stats: caching?.stats?.() ?? null, explain: caching?.explain?.(String(req.query.part ?? "")) ?? [] })
}

// Lets a subscriber write (src/subscribers/touch.ts).
export const POST = async (req: MedusaRequest, res: MedusaResponse) => {
  await req.scope.resolve(Modules.EVENT_BUS).emit({ name: "check.touch", data: req.body as object })
  res.json({})
}
