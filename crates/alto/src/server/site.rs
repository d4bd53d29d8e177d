//! One version of everything that is served (RFC 7285, section 9): documents that are asked for by GET, what is asked for by
//! POST, and the directory of all.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::config::{Config, MapConfig};
use crate::map::{CostMap, NetworkMap};
use crate::types::{CostType, media};

/// The directory's own path; `/` gives it too.
pub(crate) const DIRECTORY_PATH: &str = "/directory";

/// One version.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) cost_constraints: bool,
    pub(crate) directory: Document,
    /// Network maps first, so that nobody is sent costs between PIDs that they do not know.
    pub(crate) documents: Vec<Document>,
    /// The first is the default one.
    pub(crate) maps: Vec<MapSite>,
}

/// What is asked for by POST about one network map.
#[derive(Debug)]
pub(crate) struct MapSite {
    pub(crate) network: Arc<NetworkMap>,
    /// Numerical ones; others are made of them.
    pub(crate) costs: Vec<Arc<CostMap>>,
}

/// Something that is asked for by GET.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its resource ID.
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) media_type: &'static str,
    /// Changes exactly when the content does.
    pub(crate) tag: String,
    content: Content,
    body: OnceLock<Bytes>,
    /// What makes this of the version before, whose tag it has.
    pub(crate) patch: Option<(String, Bytes)>,
}

#[derive(Debug, Clone)]
enum Content {
    Network(Arc<NetworkMap>),
    Costs(Arc<CostMap>),
    Directory(Bytes),
}

impl Document {
    fn new(id: String, path: String, content: Content) -> Self {
        let (media_type, tag) = match &content {
            Content::Network(map) => (media::NETWORK_MAP, map.vtag().tag.clone()),
            Content::Costs(map) => (media::COST_MAP, map.tag().to_owned()),
            Content::Directory(bytes) => (media::DIRECTORY, blake3::hash(bytes).to_hex()[..40].to_owned()),
        };
        Self { id, path, media_type, tag, content, body: OnceLock::new(), patch: None }
    }

    /// The whole, written when it is first asked for.
    pub(crate) fn body(&self) -> Bytes {
        let write = || match &self.content {
            Content::Network(map) => map.write(|_| true, true, true).into(),
            Content::Costs(map) => map.write().into(),
            Content::Directory(bytes) => bytes.clone(),
        };
        self.body.get_or_init(write).clone()
    }

    /// Whether the body is there already.
    pub(crate) fn is_written(&self) -> bool {
        self.body.get().is_some() || matches!(self.content, Content::Directory(_))
    }

    /// Prepares the change from `old`, where it is shorter than the whole.
    fn patch_from(&mut self, old: &Self) {
        if self.tag == old.tag {
            return;
        }
        let patch = match (&self.content, &old.content) {
            (Content::Network(new), Content::Network(old)) => new.patch_from(old),
            (Content::Costs(new), Content::Costs(old)) if new.cost_type() == old.cost_type() => {
                new.patch_from(old)
            }
            _ => return,
        };
        if patch.len() < self.body().len() {
            self.patch = Some((old.tag.clone(), patch.into()));
        }
    }
}

/// What a path leads to.
pub(crate) enum Target<'a> {
    /// By GET only.
    Document(&'a Document),
    /// By GET the whole, by POST a part.
    NetworkMap(&'a Document, &'a MapSite),
    /// By POST.
    FilteredCosts(&'a MapSite),
    EndpointProperties,
    EndpointCosts,
    Updates,
}

impl Site {
    /// What `config` says; with changes from `old` where there is one.
    pub(crate) fn new(config: Config, old: Option<&Self>) -> Self {
        let maps: Vec<MapSite> =
            config.maps.into_iter().map(|MapConfig { network, costs }| MapSite { network, costs }).collect();
        let mut documents = Vec::new();
        for map in &maps {
            let id = map.id().to_owned();
            documents.push(Document::new(id.clone(), map.path(), Content::Network(Arc::clone(&map.network))));
        }
        for map in &maps {
            for costs in &map.costs {
                for costs in [Arc::clone(costs), Arc::new(costs.to_ordinal())] {
                    let name = type_name(costs.cost_type());
                    let id = format!("{}-{}", map.id(), name.replace('.', "_"));
                    let path = format!("/costmap/{}/{name}", map.id());
                    documents.push(Document::new(id, path, Content::Costs(costs)));
                }
            }
        }
        let directory = directory(&maps, &documents, config.server.cost_constraints);
        let directory = Bytes::from(directory.to_string());
        let directory =
            Document::new("directory".to_owned(), DIRECTORY_PATH.to_owned(), Content::Directory(directory));
        for document in &mut documents {
            if let Some(old) = old.and_then(|old| old.document(&document.id)) {
                document.patch_from(old);
            }
        }
        Self { cost_constraints: config.server.cost_constraints, directory, documents, maps }
    }

    /// What is at `path`.
    pub(crate) fn target(&self, path: &str) -> Option<Target<'_>> {
        match path {
            "/" | DIRECTORY_PATH => return Some(Target::Document(&self.directory)),
            "/endpointprop" => return Some(Target::EndpointProperties),
            "/endpointcost" => return Some(Target::EndpointCosts),
            "/updates" => return Some(Target::Updates),
            _ => {}
        }
        if let Some(map) = self.maps.iter().find(|map| map.costs_path() == path) {
            return Some(Target::FilteredCosts(map));
        }
        let document = self.documents.iter().find(|document| document.path == path)?;
        match self.maps.iter().find(|map| map.path() == path) {
            Some(map) => Some(Target::NetworkMap(document, map)),
            None => Some(Target::Document(document)),
        }
    }

    /// The document with that resource ID.
    pub(crate) fn document(&self, id: &str) -> Option<&Document> {
        self.documents.iter().find(|document| document.id == id)
    }

    /// The map whose `pid` property is called so.
    pub(crate) fn map_of_property(&self, property: &str) -> Option<&MapSite> {
        let id = property.strip_suffix(".pid")?;
        self.maps.iter().find(|map| map.id() == id)
    }

    pub(crate) fn summary(&self) -> Vec<String> {
        let line = |map: &MapSite| {
            let metrics: Vec<&str> =
                map.costs.iter().map(|costs| costs.cost_type().metric.as_str()).collect();
            format!(
                "{}: {} PIDs, {} prefixes, {} (version {})",
                map.id(),
                map.network.pids().len(),
                map.network.prefix_count(),
                metrics.join(", "),
                map.network.vtag().tag
            )
        };
        self.maps.iter().map(line).collect()
    }
}

impl MapSite {
    pub(crate) fn id(&self) -> &str {
        &self.network.vtag().resource_id
    }

    fn path(&self) -> String {
        format!("/networkmap/{}", self.id())
    }

    fn costs_path(&self) -> String {
        format!("/costmap/{}", self.id())
    }
}

/// What a cost type is called in the directory.
fn type_name(cost_type: &CostType) -> String {
    let mode = &cost_type.mode.as_str()[..3];
    format!("{mode}-{}", cost_type.metric)
}

/// Both modes of each metric.
fn type_names(costs: &[Arc<CostMap>]) -> Vec<String> {
    let metrics = costs.iter().map(|costs| costs.cost_type().metric.clone());
    metrics.flat_map(|metric| [format!("num-{metric}"), format!("ord-{metric}")]).collect()
}

/// The root directory. Paths are relative to it, so that it is right behind any proxy.
fn directory(maps: &[MapSite], documents: &[Document], cost_constraints: bool) -> Value {
    let mut cost_types: BTreeMap<String, Value> = BTreeMap::new();
    let mut resources = Map::new();
    let relative = |path: &str| path.trim_start_matches('/').to_owned();
    for document in documents {
        let mut entry = json!({ "uri": relative(&document.path), "media-type": document.media_type });
        if let Content::Costs(costs) = &document.content {
            let name = type_name(costs.cost_type());
            entry["capabilities"] = json!({ "cost-type-names": [&name] });
            entry["uses"] = json!([costs.network().vtag().resource_id]);
            cost_types.entry(name).or_insert_with(|| costs.cost_type().json());
        }
        resources.insert(document.id.clone(), entry);
    }
    for map in maps {
        resources.insert(
            format!("{}-filtered", map.id()),
            json!({
                "uri": relative(&map.path()),
                "media-type": media::NETWORK_MAP,
                "accepts": media::NETWORK_MAP_FILTER,
                "uses": [map.id()],
            }),
        );
        resources.insert(
            format!("{}-costs-filtered", map.id()),
            json!({
                "uri": relative(&map.costs_path()),
                "media-type": media::COST_MAP,
                "accepts": media::COST_MAP_FILTER,
                "capabilities": {
                    "cost-type-names": type_names(&map.costs),
                    "cost-constraints": cost_constraints,
                },
                "uses": [map.id()],
            }),
        );
    }
    let properties: Vec<String> = maps.iter().map(|map| format!("{}.pid", map.id())).collect();
    resources.insert(
        "endpoint-property".to_owned(),
        json!({
            "uri": "endpointprop",
            "media-type": media::ENDPOINT_PROP,
            "accepts": media::ENDPOINT_PROP_PARAMS,
            "capabilities": { "prop-types": properties },
        }),
    );
    if let Some(map) = maps.first() {
        resources.insert(
            "endpoint-cost".to_owned(),
            json!({
                "uri": "endpointcost",
                "media-type": media::ENDPOINT_COST,
                "accepts": media::ENDPOINT_COST_PARAMS,
                "capabilities": {
                    "cost-type-names": type_names(&map.costs),
                    "cost-constraints": cost_constraints,
                },
            }),
        );
    }
    let patched: Map<String, Value> =
        documents.iter().map(|document| (document.id.clone(), json!(media::MERGE_PATCH))).collect();
    let uses: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    resources.insert(
        "updates".to_owned(),
        json!({
            "uri": "updates",
            "media-type": media::EVENT_STREAM,
            "accepts": media::UPDATE_STREAM_PARAMS,
            "capabilities": { "incremental-change-media-types": patched },
            "uses": uses,
        }),
    );
    let default = maps.first().map_or("", |map| map.id());
    json!({
        "meta": { "cost-types": cost_types, "default-alto-network-map": default },
        "resources": resources,
    })
}
