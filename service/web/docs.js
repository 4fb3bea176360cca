"use strict";

/** Swagger UI complains of a list of files that there is no such control, and takes a file's then. */
const files = ({ React, getComponent }) => ({
  components: {
    JsonSchema_string_binary: (props) => React.createElement(getComponent("JsonSchema_string"), props),
  },
});

// A file of its own, so that a content security policy need not allow inline scripts.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  plugins: [files],
});
