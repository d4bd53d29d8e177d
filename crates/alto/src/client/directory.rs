//! What a server offers (RFC 7285, section 9.2).

use std::collections::BTreeMap;

use serde_json::Value;
use url::Url;

use super::ClientError;
use crate::types::{CostMode, CostType, Metric, is_name, media};

/// Most resources that are remembered of a server.
const RESOURCES_MAX: usize = 4096;

/// A directory, and what it leads to.
#[derive(Debug, Clone)]
pub struct Directory {
    url: Url,
    default_map: Option<String>,
    resources: BTreeMap<String, Resource>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its ID.
    pub id: String,
    /// Where it is.
    pub url: Url,
    /// What it gives.
    pub media_type: String,
    /// What it is asked with, by POST; by GET when there is nothing here.
    pub accepts: Option<String>,
    /// Resources that it depends on.
    pub uses: Vec<String>,
    /// The cost types that it offers.
    pub cost_types: Vec<CostType>,
    /// Whether it takes constraints.
    pub has_cost_constraints: bool,
    /// The endpoint properties that it offers.
    pub prop_types: Vec<String>,
}

impl Directory {
    /// Reads the directory that came from `url`. Entries that make no sense are passed over.
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`].
    pub fn read(url: &Url, json: &[u8]) -> Result<Self, ClientError> {
        let wrong = |why: String| ClientError::BadAnswer { url: Box::new(url.clone()), why };
        let value: Value = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
        let meta = value.get("meta");
        let types = meta.and_then(|meta| meta.get("cost-types")).and_then(Value::as_object);
        let types: BTreeMap<&str, CostType> = types
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.as_str(), CostType::from_json(value)?)))
            .collect();
        let entries = value.get("resources").and_then(Value::as_object);
        let entries = entries.ok_or_else(|| wrong("there are no resources in the directory".to_owned()))?;
        let read = entries.iter().filter_map(|(id, entry)| Resource::read(url, id, entry, &types));
        let resources = read.take(RESOURCES_MAX).map(|resource| (resource.id.clone(), resource)).collect();
        let default_map = meta.and_then(|meta| meta.get("default-alto-network-map")).and_then(Value::as_str);
        Ok(Self { url: url.clone(), default_map: default_map.map(str::to_owned), resources })
    }

    /// Where it came from.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// All resources by ID.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// Takes over what another directory offers; what is known already stays.
    pub(super) fn add(&mut self, other: Self) {
        for (id, resource) in other.resources {
            if self.resources.len() < RESOURCES_MAX {
                self.resources.entry(id).or_insert(resource);
            }
        }
    }

    /// Other directories that this one leads to.
    pub(super) fn more(&self) -> impl Iterator<Item = Url> {
        let directories = self.resources.values().filter(|resource| resource.media_type == media::DIRECTORY);
        directories.map(|resource| resource.url.clone()).collect::<Vec<_>>().into_iter()
    }

    /// The network map of that ID; without one the default map, and where the server names none that exists, the first.
    ///
    /// # Errors
    /// [`ClientError::NotOffered`].
    pub fn network_map(&self, id: Option<&str>) -> Result<&Resource, ClientError> {
        let is_map =
            |resource: &&Resource| resource.media_type == media::NETWORK_MAP && resource.accepts.is_none();
        if let Some(id) = id {
            let found = self.resources.get(id).filter(is_map);
            return found.ok_or_else(|| self.not_offered(&format!("a network map {id}")));
        }
        let default = self.default_map.as_ref().and_then(|id| self.resources.get(id)).filter(is_map);
        default
            .or_else(|| self.resources.values().find(is_map))
            .ok_or_else(|| self.not_offered("a network map"))
    }

    /// Where costs by `metric` between the PIDs of map `map` are, and of what type they are: numerical ones by GET where
    /// there are such.
    ///
    /// # Errors
    /// [`ClientError::NotOffered`].
    pub fn cost_map(&self, map: &str, metric: &Metric) -> Result<(&Resource, CostType), ClientError> {
        let is_of_map = |resource: &&Resource| {
            resource.media_type == media::COST_MAP && resource.uses.iter().any(|used| used == map)
        };
        for mode in [CostMode::Numerical, CostMode::Ordinal] {
            let mut offers: Vec<(&Resource, CostType)> = Vec::new();
            for resource in self.resources.values().filter(is_of_map) {
                let suiting = resource.cost_types.iter().find(|offered| offered.suits(metric, mode));
                offers.extend(suiting.map(|cost_type| (resource, cost_type.clone())));
            }
            offers.sort_by_key(|(resource, _)| resource.accepts.is_some());
            let usable = |resource: &Resource| {
                resource.accepts.as_deref().is_none_or(|accepts| accepts == media::COST_MAP_FILTER)
            };
            if let Some(found) = offers.into_iter().find(|(resource, _)| usable(resource)) {
                return Ok(found);
            }
        }
        Err(self.not_offered(&format!("a cost map of {metric} for {map}")))
    }

    /// The update stream that has all of these resources.
    pub fn update_stream(&self, ids: &[&str]) -> Option<&Resource> {
        self.resources.values().find(|resource| {
            resource.media_type == media::EVENT_STREAM
                && resource.accepts.as_deref() == Some(media::UPDATE_STREAM_PARAMS)
                && ids.iter().all(|id| resource.uses.iter().any(|used| used == id))
        })
    }

    /// The first resource of that type that suits.
    pub(super) fn find(
        &self,
        media_type: &str,
        what: &str,
        suits: impl Fn(&Resource) -> bool,
    ) -> Result<&Resource, ClientError> {
        let mut of_type = self.resources.values().filter(|resource| resource.media_type == media_type);
        of_type.find(|resource| suits(resource)).ok_or_else(|| self.not_offered(what))
    }

    fn not_offered(&self, what: &str) -> ClientError {
        ClientError::NotOffered { url: Box::new(self.url.clone()), what: what.to_owned() }
    }
}

impl Resource {
    fn read(base: &Url, id: &str, entry: &Value, types: &BTreeMap<&str, CostType>) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        // Relative to the directory (RFC 3986, section 5).
        let url = base.join(text("uri")?).ok()?;
        if !is_name(id) || !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let capabilities = entry.get("capabilities");
        let capability = |name: &str| capabilities.and_then(|capabilities| capabilities.get(name));
        let texts = |list: Option<&Value>| -> Vec<String> {
            let list = list.and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let names = texts(capability("cost-type-names"));
        Some(Self {
            id: id.to_owned(),
            url,
            media_type: text("media-type")?.to_owned(),
            accepts: text("accepts").filter(|accepts| !accepts.is_empty()).map(str::to_owned),
            uses: texts(entry.get("uses")),
            cost_types: names.iter().filter_map(|name| types.get(name.as_str()).cloned()).collect(),
            has_cost_constraints: capability("cost-constraints").and_then(Value::as_bool) == Some(true),
            prop_types: texts(capability("prop-types")),
        })
    }
}
