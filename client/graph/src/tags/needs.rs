//! What a result was made from: the one walk over plan and loaded rows that both levels of
//! precision share.
//!
//! A [`Need`] says: *the result may change if, among these rows, one comes or goes or one of these
//! fields changes.* The needs of a result are complete, and why is in `docs/graph.md`. How much of a need is
//! spelled out in tags is decided elsewhere.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::cover::{Cover, CoverRows};
use super::super::filter::Filter;
use super::super::load::{LoadedLevel, LoadedRows};
use super::super::plan::{Level, LevelDependency, Plan};
use super::super::resolver::Row;
use super::super::schema::{
    Entity, EntityIndex, FieldIndex, FieldType, ID, Name, Schema, Through, joined,
};

/// Some rows of an entity, and what about them the result depends on.
pub(crate) struct Need<'a> {
    pub(crate) entity: EntityIndex,
    pub(crate) rows: NeedRows<'a>,
    /// Whether rows coming into or leaving the set matter. If not, another need covers that.
    pub(crate) members: bool,
    /// The fields that matter; `None`: all of them.
    pub(crate) fields: Option<Cow<'a, [FieldIndex]>>,
}

/// Which rows a need is about.
pub(crate) enum NeedRows<'a> {
    /// Any row.
    All,
    /// Those whose lookup `field` has one of the values.
    Keys {
        field: FieldIndex,
        values: KeyValues<'a>,
    },
}

/// Values of a lookup, as they are at hand: nothing is copied only to be written into a tag.
pub(crate) enum KeyValues<'a> {
    /// As asked of the resolver: values of a field or tuple of an entity.
    Values(&'a Entity, FieldIndex, &'a [Value]),
    /// The keys of rows.
    Ids(&'a Entity, &'a [Row]),
    /// As canonical text.
    Texts(Cow<'a, [String]>),
}

impl KeyValues<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Values(_, _, values) => values.len(),
            Self::Ids(_, rows) => rows.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Calls `put` with the canonical text of each value. The loader has checked that all have one.
    pub(crate) fn each(&self, mut put: impl FnMut(&str)) {
        match self {
            Self::Values(entity, field, values) => {
                let texts = values
                    .iter()
                    .filter_map(|value| entity.text_of(*field, value));
                texts.for_each(|text| put(&text));
            }
            Self::Ids(entity, rows) => {
                let texts = rows.iter().filter_map(|row| entity.text_in(ID, row));
                texts.for_each(|text| put(&text));
            }
            Self::Texts(texts) => texts.iter().for_each(|text| put(text)),
        }
    }
}

/// Walks a plan and what was loaded for it.
pub(crate) struct Walk<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) plan: &'a Plan,
    pub(crate) loaded: &'a LoadedRows,
}

impl<'a> Walk<'a> {
    /// Everything the result was made from.
    pub(crate) fn needs(&self) -> Vec<Need<'a>> {
        let mut needs = Vec::with_capacity(self.plan.levels.len() + 4);
        for (level, loaded) in self.plan.levels.iter().zip(&self.loaded.levels) {
            match &level.parent {
                None => self.root(level, loaded, &mut needs),
                Some(parent) => {
                    let entity = self.schema.at(level.entity);
                    // All rows with these keys are in the result and nothing else is.
                    needs.push(Need {
                        entity: level.entity,
                        rows: NeedRows::Keys {
                            field: parent.by_index,
                            values: KeyValues::Values(entity, parent.by_index, &loaded.keys),
                        },
                        members: true,
                        fields: Some(Cow::Borrowed(&level.reads)),
                    });
                }
            }
            for dependency in &level.depends {
                needs.push(self.dependency(dependency, Some(loaded)));
            }
        }
        needs
    }

    /// The list itself.
    ///
    /// Any row of the cover may enter or leave through a field of the filter, and, if only a page
    /// of the list is shown, through a field of the order. The other fields matter in the rows on the page.
    fn root(&self, level: &'a Level, loaded: &'a LoadedLevel, needs: &mut Vec<Need<'a>>) {
        let plan = self.plan;
        let entity = self.schema.at(level.entity);
        let cover = Cover::of(self.schema, entity, &plan.filter);

        let mut deciding = BTreeSet::new();
        self.filter(entity, &plan.filter, &mut deciding, needs);
        let rows = loaded.rows.len() as u64;
        let is_page = plan.skip > 0 || plan.take.is_some_and(|take| rows >= take);
        let order = plan
            .order
            .iter()
            .filter_map(|(name, _)| entity.index_of(name));
        let mut shown: BTreeSet<FieldIndex> = level.reads.iter().copied().collect();
        if is_page {
            deciding.extend(order);
        } else {
            shown.extend(order);
        }
        deciding.retain(|&field| !entity.is_key_part(field));
        shown.retain(|&field| !entity.is_key_part(field));

        // If all rows of the cover are shown anyway, naming them again by id adds nothing.
        let merges = cover.ids().is_some() || (cover.exact && !is_page);
        if merges {
            deciding.append(&mut shown);
        } else {
            shown.retain(|field| !deciding.contains(field));
        }
        if !shown.is_empty() && !loaded.rows.is_empty() {
            needs.push(Need {
                entity: level.entity,
                rows: NeedRows::Keys {
                    field: ID,
                    values: KeyValues::Ids(entity, &loaded.rows),
                },
                members: false,
                fields: Some(shown.into_iter().collect()),
            });
        }
        push_cover(level.entity, cover, deciding.into_iter().collect(), needs);
    }

    /// Collects the entity's own fields that decide whether a filter holds, and pushes what it
    /// needs of related entities.
    fn filter(
        &self,
        entity: &'a Entity,
        filter: &Filter,
        fields: &mut BTreeSet<FieldIndex>,
        needs: &mut Vec<Need<'a>>,
    ) {
        match filter {
            Filter::And(all) | Filter::Or(all) => {
                for filter in all {
                    self.filter(entity, filter, fields, needs);
                }
            }
            Filter::Not(filter) => self.filter(entity, filter, fields, needs),
            Filter::IsNull(field)
            | Filter::Compare(field, ..)
            | Filter::In(field, _)
            | Filter::Like { field, .. } => fields.extend(entity.index_of(field)),
            Filter::InTuples { fields: names, .. } => {
                fields.extend(names.iter().filter_map(|name| entity.index_of(name)));
            }
            Filter::Related { relation, filter } => {
                self.related(entity, relation, filter, fields, needs);
            }
        }
    }

    /// `relation: { … }` holds because of rows of the target that meet the inner filter, of the
    /// links to them, and of the key on this side.
    fn related(
        &self,
        entity: &'a Entity,
        relation: &str,
        filter: &Filter,
        fields: &mut BTreeSet<FieldIndex>,
        needs: &mut Vec<Need<'a>>,
    ) {
        let Some(relation) = entity.get_relation(relation) else {
            return;
        };
        let Some(index) = self.schema.index_of(&relation.target) else {
            return;
        };
        let local = relation.local.iter();
        fields.extend(local.filter_map(|name| entity.index_of(name)));
        let target = self.schema.at(index);
        let cover = Cover::of(self.schema, target, filter);
        let mut theirs = BTreeSet::new();
        self.filter(target, filter, &mut theirs, needs);
        let foreign = relation.foreign.iter();
        theirs.extend(foreign.filter_map(|name| target.index_of(name)));
        theirs.retain(|&field| !target.is_key_part(field));

        if let Some(through) = &relation.through {
            self.link(through, target, &relation.foreign, &cover, needs);
        }
        self.entity_dependencies(target, needs);
        push_cover(index, cover, theirs.into_iter().collect(), needs);
    }

    /// The links towards the rows of a cover: those of the rows named, if they are named.
    fn link(
        &self,
        through: &Through,
        target: &Entity,
        foreign: &[Name],
        cover: &Cover,
        needs: &mut Vec<Need<'a>>,
    ) {
        let Some(index) = self.schema.index_of(&through.link) else {
            return;
        };
        let link = self.schema.at(index);
        let kinds = |entity: &Entity, field| -> Vec<FieldType> {
            let parts = entity.parts_of(field);
            parts.map(|part| entity.field_at(part).kind).collect()
        };
        // Texts of one field stand for values of another only if both have the same type.
        let is_of_ids = target.index_of_all(foreign) == Some(ID);
        let far_named = link
            .index_of_all(&through.far)
            .filter(|&far| is_of_ids && kinds(link, far) == kinds(target, ID));
        let ends = through.near.iter().chain(&through.far);
        let ends: BTreeSet<FieldIndex> = ends.filter_map(|name| link.index_of(name)).collect();
        let rows = match (far_named, cover.ids()) {
            (Some(field), Some(ids)) => NeedRows::Keys {
                field,
                values: KeyValues::Texts(Cow::Owned(ids.to_vec())),
            },
            _ => NeedRows::All,
        };
        self.entity_dependencies(link, needs);
        needs.push(Need {
            entity: index,
            rows,
            members: true,
            fields: Some(
                ends.into_iter()
                    .filter(|&field| !link.is_key_part(field))
                    .collect(),
            ),
        });
    }

    /// What was declared to influence the rows of `of`: rows at hand, or, if only a filter read
    /// them, any.
    fn dependency(
        &self,
        dependency: &LevelDependency,
        loaded: Option<&'a LoadedLevel>,
    ) -> Need<'a> {
        let keyed = || {
            let (theirs, ours) = dependency.key.as_ref()?;
            let entity = self.schema.at(dependency.entity);
            let fields = || entity.parts_of(*theirs).map(|part| entity.field_at(part));
            let has_all = |row: &&Row| ours.iter().all(|name| row.contains_key(&**name));
            // A value that is not of their type could equal anything.
            let texts = loaded?.rows.iter().filter(has_all).map(|row| {
                let parts = fields().zip(ours);
                let mut texts = parts.map(|(field, name)| field.kind.canonical_text(&row[&**name]));
                match ours.len() {
                    1 => texts.next().flatten(),
                    _ => joined(texts),
                }
            });
            let texts: Option<BTreeSet<Cow<'_, str>>> = texts.collect();
            Some(NeedRows::Keys {
                field: *theirs,
                values: KeyValues::Texts(texts?.into_iter().map(Cow::into_owned).collect()),
            })
        };
        Need {
            entity: dependency.entity,
            rows: keyed().unwrap_or(NeedRows::All),
            members: true,
            fields: dependency.fields.clone().map(Cow::Owned),
        }
    }

    fn entity_dependencies(&self, entity: &Entity, needs: &mut Vec<Need<'a>>) {
        for dependency in &entity.depends {
            if let Some(dependency) = LevelDependency::new(self.schema, dependency) {
                needs.push(self.dependency(&dependency, None));
            }
        }
    }
}

/// One need for each set of rows in a cover.
fn push_cover(
    entity: EntityIndex,
    cover: Cover,
    fields: Vec<FieldIndex>,
    needs: &mut Vec<Need<'_>>,
) {
    let mut push = |rows, fields: Vec<FieldIndex>| {
        needs.push(Need {
            entity,
            rows,
            members: true,
            fields: Some(Cow::Owned(fields)),
        });
    };
    match cover.rows {
        CoverRows::All => push(NeedRows::All, fields),
        CoverRows::AnyOf(sets) => {
            for set in sets {
                let rows = NeedRows::Keys {
                    field: set.field,
                    values: KeyValues::Texts(Cow::Owned(set.values)),
                };
                push(rows, fields.clone());
            }
        }
    }
}
