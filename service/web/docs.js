"use strict";

/** Swagger UI complains of a list of files that there is no such control, and takes a file's then. */
const files = ({ React, getComponent }) => ({
  components: {
    JsonSchema_string_binary: (props) => React.createElement(getComponent("JsonSchema_string"), props),
  },
});

// Its colours for the dark hang on a class, not on what the system is set to.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

// A file of its own, so that a content security policy need not allow inline scripts.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  // Of its themes, one whose every colour is told from the background.
  syntaxHighlight: { theme: "obsidian" },
  plugins: [files],
});
