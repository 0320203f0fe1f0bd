// The API's description, shown by Swagger UI. Tokens typed in here stay in this tab.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  // Neither sends the description to a service of others.
  validatorUrl: null,
  queryConfigEnabled: false,
});
