// What Grafana would show of values, by Grafana's own code: texts and colours, overrides included.
//
// In, as JSON on standard input, where "NaN" stands for NaN: {"panels": [{"fieldConfig": …, "fields": [{"name": …,
// "refId": …, "values": […]}]}], "tables": [{"fieldConfig": …, "transformations": …, "fields": [{"name": …, "type":
// …, "values": […]}]}]}. Out: for each field of each panel a list of {"text": …, "color": …}; of each table the
// rows of texts, its head first.
"use strict";

// Standard output is for the answer alone; a translation library there praises itself.
console.log = console.info = console.error;

// The library asks for a browser when it is loaded.
const { JSDOM } = require("jsdom");
globalThis.window = new JSDOM("", { url: "http://localhost/" }).window;
globalThis.document = window.document;

const grafana = require("@grafana/data");
const { firstValueFrom } = require("rxjs");

// The properties of any panel that the dashboards set, under their own names. Grafana registers them with the
// editor of each, which is not needed to read them.
const PROPERTIES = ["color", "decimals", "mappings", "max", "min", "noValue", "thresholds", "unit"];
const registry = new grafana.FieldConfigOptionsRegistry(() =>
  PROPERTIES.map((id) => ({
    id,
    path: id,
    name: id,
    process: grafana.identityOverrideProcessor,
    shouldApply: () => true,
  })),
);
const theme = grafana.createTheme({ colors: { mode: "dark" } });

grafana.standardTransformersRegistry.setInit(() =>
  ["sortByTransformer", "organizeFieldsTransformer"].map((name) => {
    const transformation = grafana.standardTransformers[name];
    return { id: transformation.id, transformation };
  }),
);

/** As Grafana does when it loads a dashboard: JSON has no minus infinity. */
function restoreInfinity(fieldConfig) {
  for (const step of fieldConfig.defaults.thresholds?.steps ?? []) {
    step.value ??= -Infinity;
  }
}

function withOverrides(data, fieldConfig) {
  return grafana.applyFieldOverrides({
    data,
    fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: "utc",
  });
}

function shown({ fieldConfig, fields }) {
  restoreInfinity(fieldConfig);
  const frames = fields.map(({ name, refId, values }) =>
    grafana.toDataFrame({
      refId,
      fields: [
        {
          name: "Value",
          type: grafana.FieldType.number,
          config: { displayNameFromDS: name },
          values: values.map((value) => (value === "NaN" ? NaN : value)),
        },
      ],
    }),
  );
  return withOverrides(frames, fieldConfig).map(({ fields: [field] }) =>
    field.values.map((value) => {
      const display = field.display(value);
      return { text: grafana.formattedValueToString(display), color: display.color };
    }),
  );
}

async function tabulated({ fieldConfig, transformations, fields }) {
  restoreInfinity(fieldConfig);
  const data = [grafana.toDataFrame({ refId: "A", fields })];
  const transformed = await firstValueFrom(grafana.transformDataFrame(transformations, data, { interpolate: (text) => text }));
  const columns = withOverrides(transformed, fieldConfig)[0].fields.map((field) => [
    grafana.getFieldDisplayName(field),
    ...field.values.map((value) => grafana.formattedValueToString(field.display(value))),
  ]);
  return columns[0].map((_, row) => columns.map((column) => column[row]));
}

const units = grafana.getValueFormats().flatMap(({ submenu }) => submenu.map(({ value }) => value));
const { panels, tables } = JSON.parse(require("node:fs").readFileSync(0, "utf-8"));
Promise.all(tables.map(tabulated)).then((rows) =>
  process.stdout.write(JSON.stringify({ units, panels: panels.map(shown), tables: rows })),
);
