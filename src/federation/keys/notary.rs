//! This server as a notary: the keys of others, with its own signature beside theirs ("Querying Keys Through Another Server").

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use protocol::{json::Object, sign};
use ruma::{OwnedServerName, ServerName};

use super::rows;
use crate::{Federation, Result};

/// Servers that are asked at the same time for one who asks this server.
const AT_ONCE: usize = 16;

/// What is asked of a notary: key ids of a server, and until when each must be valid; no ids stand for all.
pub type Criteria = BTreeMap<String, u64>;

impl Federation {
    /// The documents of servers whose keys are known or to be had, signed by this server too.
    ///
    /// # Errors
    /// Only where Hearth fails.
    pub async fn notarized(&self, wanted: BTreeMap<OwnedServerName, (Criteria, u64)>) -> Result<Vec<Object>> {
        let one = |(server, (criteria, until_ms)): (OwnedServerName, (Criteria, u64))| async move {
            self.notarized_of(&server, criteria, until_ms).await
        };
        let mut found = stream::iter(wanted).map(one).buffer_unordered(AT_ONCE);
        let mut documents = Vec::new();
        while let Some(document) = found.next().await {
            documents.extend(document?);
        }
        Ok(documents)
    }

    async fn notarized_of(&self, server: &ServerName, criteria: Criteria, until_ms: u64) -> Result<Option<Object>> {
        if server == self.name() {
            return self.own_document().map(Some);
        }
        let row = rows::known(&self.store.snapshot(), server)?.unwrap_or_default();
        let until_ms = criteria.values().copied().max().unwrap_or(0).max(until_ms);
        let mut document = row.document(until_ms).filter(|_| !self.lacks(&row.keys(), &criteria));
        if document.is_none() {
            // An id that no server has leads to a fetch, where none were named.
            let criteria = if criteria.is_empty() { [(String::new(), until_ms)].into() } else { criteria };
            self.fetch_of(server, &criteria).await?;
            document = rows::known(&self.store.snapshot(), server)?.and_then(|row| row.last_document());
        }
        let Some(mut document) = document else { return Ok(None) };
        let signed = sign::sign_json(&mut document, self.name().as_str(), &self.identity.key);
        Ok(signed.is_ok().then_some(document))
    }
}
