/** What Medusa publishes for its cache: time with it by time without. */
export const PUBLISHED = {
  "GET /store/products": 0.23, "GET /store/product-categories": 0.58, "GET /store/products/:id": 0.76, "GET /store/regions": 0.57,
  "POST /store/carts/:id/line-items": 0.61, "POST /store/carts/:id/shipping-methods": 0.67, "POST /store/carts/:id/promotions": 0.67,
  "GET /store/carts/:id": 0.67, "POST /store/carts/:id": 0.72, "POST /store/carts": 0.74, "POST /store/carts/:id/complete": 0.75,
  "GET /store/orders/:id": 0.68, "GET /store/shipping-options": 0.64, "POST /store/payment-collections": 0.67,
  "POST /store/payment-collections/:id/payment-sessions": 0.67,
}
