// Starts the page: takes the token out of the address bar before anything else, then mounts.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { takeToken } from './lib/api';

takeToken();
const target = document.getElementById('app');
if (target) mount(App, { target });
