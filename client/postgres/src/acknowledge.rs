//! Acknowledging: a consumer's position, and the rows that go with it.
//!
//! Owns when and how the position of an [`OutboxSource`] is stored, and the deletion of what all consumers have. What
//! is handed out is in `reading.rs`.

use tokio::time::Instant;

use super::error::PostgresError;
use super::prune::SWEEP_ROWS;
use super::source::{OutboxReceipt, OutboxSource};
use super::timing::in_time;

impl OutboxSource {
    /// Stores that batches are acknowledged: at once, or with those that follow while there is much to do.
    pub(super) async fn store_if_due(&mut self) -> Result<(), PostgresError> {
        match !self.is_owed || self.pace.may_owe(self.stored_at, Instant::now()) {
            true => Ok(()),
            false => self.store().await,
        }
    }

    /// Stores how far was acknowledged, and deletes what all others have acknowledged as well.
    pub(super) async fn store(&mut self) -> Result<(), PostgresError> {
        // Forgotten only when it is stored: this may be dropped while it waits.
        let Some(position) = self.to_store.clone() else {
            return Ok(());
        };
        let session = self.session()?;
        in_time(
            "acknowledging changes",
            session.link.client.execute(
                &session.acknowledge,
                &[&session.consumer, &position.as_text()],
            ),
        )
        .await?;
        let (from, to) = (self.stored.xmax(), position.xmax());
        let open = self.stored.open();
        loop {
            let deleted = in_time(
                "deleting acknowledged changes",
                session
                    .link
                    .client
                    .execute(&session.delete, &[&from, &open, &to, &SWEEP_ROWS]),
            )
            .await?;
            if (deleted as i64) < SWEEP_ROWS {
                break;
            }
        }
        if position.is_beyond(&self.stored) {
            self.stored = position;
        }
        self.to_store = None;
        self.is_owed = false;
        self.stored_at = Some(Instant::now());
        Ok(())
    }

    pub(super) async fn forget(
        &mut self,
        receipts: &mut Vec<OutboxReceipt>,
    ) -> Result<(), PostgresError> {
        if self.session.is_none() {
            // All of an earlier session: the next one hands them out again.
            receipts.clear();
            return Ok(());
        }
        let current = |receipt: &&OutboxReceipt| receipt.what.generation == self.generation;
        if receipts
            .iter()
            .filter(current)
            .any(|receipt| receipt.what.clears)
        {
            let session = self.session()?;
            in_time(
                "acknowledging that everything was cleared",
                session
                    .link
                    .client
                    .execute(&session.cleared, &[&session.consumer]),
            )
            .await?;
        }
        // Of an earlier session: handed out again in this one.
        for receipt in receipts.drain(..) {
            if receipt.what.generation == self.generation
                && let Some(position) = self.ledger.acknowledged(receipt.what.number)
            {
                self.to_store = Some(position);
                self.is_owed = true;
            }
        }
        self.store_if_due().await
    }
}
