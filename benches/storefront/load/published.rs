//! What others publish of the same endpoints.

/// What others say of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// As in [`ENDPOINTS`](crate::ENDPOINTS).
    pub endpoint: &'static str,
    /// Time saved by Medusa Cache, as published, in percent.
    pub saved_percent: u32,
    /// What a Medusa 2.21.2 server with its own Redis provider reached on a machine like this: milliseconds off and on.
    pub medusa_ms: (u32, u32),
}

const fn published(endpoint: &'static str, saved_percent: u32, off: u32, on: u32) -> Published {
    Published {
        endpoint,
        saved_percent,
        medusa_ms: (off, on),
    }
}

/// The published table.
pub const PUBLISHED: [Published; 15] = [
    published("GET /store/products", 77, 349, 197),
    published("GET /store/product-categories", 42, 44, 40),
    published("GET /store/products/{id}", 24, 100, 90),
    published("POST /store/carts/{id}/line-items", 39, 364, 333),
    published("POST /store/carts/{id}/shipping-methods", 33, 655, 621),
    published("POST /store/carts/{id}/promotions", 33, 192, 189),
    published("GET /store/carts/{id}", 33, 56, 49),
    published("POST /store/carts/{id}", 28, 513, 482),
    published("POST /store/carts", 26, 188, 190),
    published("POST /store/carts/{id}/complete", 25, 427, 540),
    published("GET /store/orders/{id}", 32, 51, 55),
    published("GET /store/regions", 43, 16, 12),
    published("GET /store/shipping-options", 36, 125, 102),
    published("POST /store/payment-collections", 33, 63, 54),
    published("POST /store/payment-collections/{id}/payments", 33, 52, 49),
];
