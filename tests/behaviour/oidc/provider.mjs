// oidc-provider with the clients that it is given.  Its settings are one JSON value on standard
// input; it prints its issuer when it listens, and ends with its standard input.
import { createRequire } from 'node:module';
import { X509Certificate } from 'node:crypto';
import * as https from 'node:https';
import * as readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const lines = readline.createInterface({ input: process.stdin });
const settings = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
process.stdin.on('end', () => process.exit()).resume();

const require = createRequire(`${settings.modules}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const peer = (ctx) => ctx.socket.getPeerX509Certificate?.();
const resource = {
  scope: 'read', audience: settings.resource, accessTokenFormat: 'jwt', accessTokenTTL: 600,
  jwt: { sign: { alg: 'RS256' } },
};

const server = https.createServer({
  key: settings.key, cert: settings.cert, ca: settings.ca,
  requestCert: true, rejectUnauthorized: false,
});
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: settings.clients,
    scopes: ['openid', 'read'],
    clientAuthMethods: [
      'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
      'tls_client_auth', 'self_signed_tls_client_auth', 'none',
    ],
    discovery: { mtls_endpoint_aliases: { token_endpoint: `${issuer}/token` } },
    enabledJWA: {
      clientAuthSigningAlgValues: ['HS256', ...settings.algorithms],
      dPoPSigningAlgValues: settings.proofs,
    },
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: () => true,
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 1), requireNonce: () => true },
      pushedAuthorizationRequests: {
        enabled: true, requirePushedAuthorizationRequests: settings.strict,
      },
      requestObjects: { enabled: true, requireSignedRequestObject: settings.strict },
      clientCredentials: { enabled: true },
      registration: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // Tokens of a user are for the userinfo endpoint.
        defaultResource: (ctx, client) => (
          client.grantTypeAllowed('refresh_token') ? undefined : settings.resource),
        getResourceServerInfo: () => resource,
      },
      mTLS: {
        enabled: true, certificateBoundAccessTokens: true,
        selfSignedTlsClientAuth: true, tlsClientAuth: true,
        getCertificate: (ctx) => peer(ctx)?.toString(),
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_san_dns'
          && new X509Certificate(peer(ctx).raw).subjectAltName === `DNS:${expected}`,
      },
    },
  });
  // The user approves everything.
  const approve = async (req, res) => {
    const { prompt, params, session } = await provider.interactionDetails(req, res);
    if (prompt.name === 'login') {
      return provider.interactionFinished(req, res, { login: { accountId: 'ada' } });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    if (params.resource) {
      grant.addResourceScope(params.resource, params.scope);
    }
    const consent = { grantId: await grant.save() };
    return provider.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
  };
  const answer = provider.callback();
  server.on('request', (req, res) => (
    req.url.startsWith('/interaction/') ? approve(req, res) : answer(req, res)));
  console.log(issuer);
});
